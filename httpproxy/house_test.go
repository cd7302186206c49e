package httpproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
)

// house is a proxy between a loopback client and loopback origins, with a real policy. The
// addresses that it judges are public ones, which Dial maps to the origins.
type house struct {
	*Server
	policy  *egress.Policy
	names   map[string][]netip.Addr   // what DNS says
	api     netip.Addr                // the API server's
	origins map[netip.AddrPort]string // where an address is in truth
	dials   func(egress.Conn)         // is told of each
	mu      sync.Mutex
	flows   []egress.Flow
	changed chan struct{} // closed at the next flow
}

var (
	allowed = netip.MustParseAddr("20.1.2.3")
	other   = netip.MustParseAddr("20.1.2.4")
)

// newHouse permits the endpoints to everybody; allowed.test has the address allowed and all
// other names have the other one.
func newHouse(t *testing.T, endpoints ...string) *house {
	t.Helper()
	h := &house{
		names: map[string][]netip.Addr{
			"allowed.test": {allowed}, "also.test": {allowed}, "evil.test": {other}, "api.test": {netip.MustParseAddr("20.7.7.7")},
			"inside.test": {netip.MustParseAddr("10.0.0.7")}, "meta.test": {netip.MustParseAddr("169.254.169.254")},
		},
		api:     netip.MustParseAddr("20.7.7.7"),
		origins: map[netip.AddrPort]string{},
		changed: make(chan struct{}),
	}
	h.allow(t, endpoints...)
	h.Server = &Server{
		Decide: h.decide, Dial: h.dial, Report: h.report,
		Permits: func(client netip.Addr, n egress.Name) bool { return h.current().Permits(client, n) },
		Lookup: func(_ context.Context, _ netip.Addr, n egress.Name) ([]netip.Addr, error) {
			if a := h.names[n.String()]; a != nil {
				return a, nil
			}
			return nil, fmt.Errorf("no such name")
		},
		From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}
	return h
}

// allow replaces the policy.
func (h *house) allow(t *testing.T, endpoints ...string) {
	t.Helper()
	r := egress.Rule{ID: "test/all", Why: "a test"}
	for _, s := range endpoints {
		e, err := egress.ParseEndpoint(s)
		if err != nil {
			t.Fatal(err)
		}
		r.To = append(r.To, e)
	}
	p, err := egress.Compile([]egress.Rule{r}, []egress.Cluster{{
		Name: "c", From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, APIServer: egress.MustParseName("api.test"), ByAddress: true,
	}})
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.policy = p
}

func (h *house) current() *egress.Policy {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.policy
}

func (h *house) decide(_ context.Context, c egress.Conn) egress.Flow {
	if c.Bound == nil {
		for n, addrs := range h.names {
			for _, a := range addrs {
				if a == c.Dst.Addr() {
					c.Bound = append(c.Bound, egress.MustParseName(n))
				}
			}
		}
	}
	c.API = c.Dst.Addr() == h.api
	p := h.current()
	return egress.Flow{Time: time.Now(), Policy: p.ID(), Cluster: "c", Conn: c, Verdict: p.Decide(c)}
}

func (h *house) dial(ctx context.Context, c egress.Conn) (net.Conn, error) {
	to, ok := h.origins[c.Dst]
	if h.dials != nil {
		h.dials(c)
	}
	if !ok {
		return nil, fmt.Errorf("dial %s: connection refused", c.Dst)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", to)
}

func (h *house) report(f egress.Flow) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flows = append(h.flows, f)
	close(h.changed)
	h.changed = make(chan struct{})
}

// verdicts are the decided flows so far, as text.
func (h *house) verdicts() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for _, f := range h.flows {
		if !f.End {
			all = append(all, f.Verdict.Action.String()+" "+f.Verdict.Reason.String())
		}
	}
	return all
}

// awaitEnd returns the flow of the n-th end.
func (h *house) awaitEnd(t *testing.T, n int) egress.Flow {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		h.mu.Lock()
		left, changed := n, h.changed
		for _, f := range h.flows {
			if f.End {
				if left--; left == 0 {
					h.mu.Unlock()
					return f
				}
			}
		}
		h.mu.Unlock()
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("flow %d has not ended", n)
		}
	}
}

// diverted is a listener of connections that dialled another address.
type diverted struct {
	net.Listener
	to netip.AddrPort
}

func (d diverted) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return divertedConn{c.(*net.TCPConn), d.to}, nil
}

type divertedConn struct {
	*net.TCPConn
	to netip.AddrPort
}

func (d divertedConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(d.to) }

// transparent starts the proxy for what dials to, and returns its address.
func (h *house) transparent(t *testing.T, to netip.AddrPort) string {
	return h.start(t, func(ctx context.Context, l net.Listener) error {
		return h.ServeTransparent(ctx, diverted{l, to})
	})
}

// proxy starts the explicit proxy.
func (h *house) proxy(t *testing.T) string { return h.start(t, h.ServeProxy) }

func (h *house) start(t *testing.T, serve func(context.Context, net.Listener) error) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

// listen serves each connection with f until the test ends.
func listen(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	t.Cleanup(func() { l.Close(); open.Wait() })
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { defer c.Close(); f(c) })
		}
	})
	return l.Addr().String()
}

// recorder is an origin that answers each request as net/http reads it, and remembers it as
// "METHOD target host body".
type recorder struct {
	mu   sync.Mutex
	seen []string
}

func (r *recorder) serve(c net.Conn) {
	c.SetDeadline(time.Now().Add(20 * time.Second))
	br := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(br)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				r.add("unreadable: " + err.Error())
			}
			return
		}
		if req.Header.Get("Expect") != "" {
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		body, err := io.ReadAll(req.Body)
		line := fmt.Sprintf("%s %s %s", req.Method, req.RequestURI, req.Host)
		if len(body) > 0 {
			line += " " + string(body)
		}
		if err != nil {
			r.add(line + " cut short")
			return
		}
		r.add(line)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
		if req.Method != http.MethodHead {
			io.WriteString(c, "ok")
		}
		if req.Close {
			return
		}
	}
}

func (r *recorder) add(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, s)
}

// expect waits until the origin has seen that.
func (r *recorder) expect(t *testing.T, want string) {
	t.Helper()
	for range 200 {
		if r.all() == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the origin sees %q, want %q", r.all(), want)
}

func (r *recorder) all() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.seen, "; ")
}

// say sends bytes, ends the sending, and returns all that comes back.
func say(t *testing.T, addr, bytes string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, bytes); err != nil {
		t.Logf("write: %v", err)
	}
	c.(*net.TCPConn).CloseWrite()
	back, err := io.ReadAll(c)
	if err != nil {
		t.Logf("read: %v", err)
	}
	return string(back)
}

// statuses reads answers to requests of those methods and returns their codes.
func statuses(t *testing.T, back string, methods ...string) string {
	t.Helper()
	br := bufio.NewReader(strings.NewReader(back))
	var codes []string
	for i := 0; ; i++ {
		if _, err := br.Peek(1); err != nil {
			return strings.Join(codes, " ")
		}
		method := "GET"
		if i < len(methods) {
			method = methods[i]
		}
		res, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("answer %d of %q: %v", i+1, back, err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatalf("body of answer %d of %q: %v", i+1, back, err)
		}
		codes = append(codes, fmt.Sprint(res.StatusCode))
	}
}
