//go:build linux

package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tidegate.io/tidegate/egress"
)

// A Case is one thing to be tried from a node, with what must come of it.
type Case struct {
	Group string          // what it belongs to: a rule, or a kind of trick
	About string          // for a rule, the endpoint
	Name  string          // reads on after "a node": "asks MCR for /v2/"
	Deny  []egress.Reason // the reasons for which the gateway may stop it; empty: it must pass
	Quiet bool            // the gateway may stop it without a word: there was nothing to decide
	Run   func(ctx context.Context, t *Try) error
}

// A Try is one run of a Case.
type Try struct {
	Lab  *Lab
	Node *Node

	// Token is a word that nothing else in the lab holds. Where it stands at the end of what is sent, a server that saw
	// it saw all of it.
	Token string

	started time.Time
	mu      sync.Mutex
	proof   []byte // what a server must have seen; nil: the case itself knows whether it got through
	sources []netip.AddrPort
	packets []netip.Addr // where packets without ports went
}

// Result is what came of a Case.
type Result struct {
	Case
	Err     error         // what the client met; nil: an answer came
	Reached bool          // a server got the complete message
	Seen    []Seen        // what the servers got
	Denied  bool          // the gateway's log says so
	Reason  egress.Reason // why; when not denied, why it was allowed
	Rule    string        // the rule that allowed it
	Took    time.Duration
}

// As reports whether everything came as it must. Without a gateway everything must reach its server.
func (r Result) As(plain bool) bool {
	switch {
	case len(r.Deny) == 0:
		return r.Err == nil && r.Reached
	case plain:
		return r.Reached
	}
	if r.Reached {
		return false
	}
	return r.Denied && slices.Contains(r.Deny, r.Reason) || r.Quiet && !r.Denied
}

// Bounds of one try.
const (
	tryTimeout   = 12 * time.Second // longer than a gateway waits for a hello
	silence      = 1500 * time.Millisecond
	arrivalGrace = 150 * time.Millisecond // what a server may still be reading when the client is done
	logGrace     = 2 * time.Second        // what the gateway may still be writing
	tryParallel  = 16
)

var tokens atomic.Uint64

// newToken returns a word that is a DNS label as well.
func newToken() string { return fmt.Sprintf("tok%012x", tokens.Add(1)*0x9e3779b97f4a7c15>>16) }

// Run tries every case, several at a time, and returns what came of each, in the order of the cases. each, if not nil,
// is called with the results as they come, never twice at a time. flows is the gateway's log; nil without a gateway.
func (l *Lab) Run(ctx context.Context, cases []Case, flows *FlowLog, each func(Result)) ([]Result, error) {
	var mu sync.Mutex
	results := make([]Result, len(cases))
	g, limited := errgroup.WithContext(ctx)
	g.SetLimit(cmp.Or(l.conf.Parallel, tryParallel))
	for i, c := range cases {
		g.Go(func() error {
			if err := limited.Err(); err != nil {
				return err
			}
			r := l.try(limited, c, l.Node(1+i%2), flows)
			if flows != nil && r.unlogged() {
				results[i] = r
				return nil // below
			}
			mu.Lock()
			defer mu.Unlock()
			results[i] = r
			tell(each, r)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return results, l.runAgain(ctx, results, flows, each)
}

func tell(each func(Result), r Result) {
	if each != nil {
		each(r)
	}
}

// unlogged reports whether r was stopped and nobody knows why.
func (r Result) unlogged() bool { return len(r.Deny) > 0 && !r.Reached && !r.Denied && !r.Quiet }

// runAgain repeats, slowly, what was stopped without a word: of one client a gateway logs only so many denials a second.
func (l *Lab) runAgain(ctx context.Context, results []Result, flows *FlowLog, each func(Result)) error {
	if flows == nil {
		return nil
	}
	const pause = 100 * time.Millisecond
	for i, r := range results {
		if !r.unlogged() {
			continue
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		results[i] = l.try(ctx, r.Case, l.Node(1+i%2), flows)
		tell(each, results[i])
	}
	return nil
}

func (l *Lab) try(ctx context.Context, c Case, n *Node, flows *FlowLog) Result {
	t := &Try{Lab: l, Node: n, Token: newToken(), started: time.Now()}
	limited, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	r := Result{Case: c, Err: c.Run(limited, t)}
	r.Took = time.Since(t.started)
	r.Reached, r.Seen = t.arrived(ctx, r.Err == nil || l.Plain())
	if flows == nil {
		return r
	}
	if f, ok := flows.find(ctx, t, len(c.Deny) > 0); ok {
		r.Denied = f.Verdict.Action == egress.Deny
		r.Reason = f.Verdict.Reason
		if f.Verdict.Rule != nil {
			r.Rule = f.Verdict.Rule.ID
		}
	}
	return r
}

// arrived reports whether a server has seen the proof, and which.
func (t *Try) arrived(ctx context.Context, expected bool) (bool, []Seen) {
	if t.proof == nil {
		return expected, nil
	}
	grace := arrivalGrace
	if expected {
		grace = logGrace
	}
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	seen := t.Lab.Saw(ctx, t.proof)
	return len(seen) > 0, seen
}

// prove says what a server must have seen for the try to have arrived.
func (t *Try) prove(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.proof = b
}

// Dial connects from the try's node, and keeps in mind from where.
func (t *Try) Dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	c, from, err := t.Node.dial(ctx, network, to)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sources = append(t.sources, from)
	if err == nil {
		context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) }) // nobody waits once the lab ends
	}
	return c, err
}

// Exchange sends message and returns the first bytes of the answer.
func (t *Try) Exchange(ctx context.Context, network string, to netip.AddrPort, message []byte) ([]byte, error) {
	c, err := t.Dial(ctx, network, to)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	wait := tryTimeout
	if network == "udp" {
		wait = silence
	}
	_ = c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write(message); err != nil {
		return nil, err
	}
	answer := make([]byte, 4096)
	n, err := c.Read(answer)
	if errors.Is(err, io.EOF) {
		err = errors.New("closed without an answer")
	}
	return answer[:n], err
}

// resolve returns an address of name that the node may use: asked of the cluster's DNS, as a pod does.
func (t *Try) resolve(ctx context.Context, name string, v6 bool) (netip.Addr, error) {
	addrs, err := t.Node.Lookup(ctx, name, v6)
	if err != nil {
		return netip.Addr{}, err
	}
	return addrs[0], nil
}

// knows reports whether f is about this try.
func (t *Try) knows(f *egress.Flow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.Time.Before(t.started) { // the ports were somebody else's then
		return false
	}
	if f.Conn.Src.IsValid() && f.Conn.Src.Port() != 0 && slices.Contains(t.sources, f.Conn.Src) {
		return true
	}
	if strings.Contains(f.Conn.Name.String(), t.Token) {
		return true
	}
	return slices.Contains(t.Node.Addrs[:], f.Conn.Src.Addr()) && slices.Contains(t.packets, f.Conn.Dst.Addr())
}
