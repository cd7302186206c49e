package gateway

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns"
	"tidegate.io/tidegate/internal/netns/netnstest"
	"tidegate.io/tidegate/kernel"
	"tidegate.io/tidegate/wire/wiretest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

// bench is a client, a gateway with a Follower on the kernel's queue, a router behind it, and a TLS
// server that serves every name.
type bench struct {
	t                         testing.TB
	client, gateway, hop, web *netns.NS
	accepted                  chan *recorded

	mu    sync.Mutex
	flows []egress.Flow
}

const (
	patience = 10 * time.Second // for what is expected to happen; nothing measures it
	queue    = 100
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func prefixes(ss ...string) (ps []netip.Prefix) {
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// eachWay runs f over IPv4 and IPv6, with offloads and without.
func eachWay(t *testing.T, f func(t *testing.T, b *bench, server string)) {
	netnstest.Need(t)
	for _, gso := range []bool{true, false} {
		t.Run(fmt.Sprintf("gso=%t", gso), func(t *testing.T) {
			b := newBench(t, gso)
			b.follow()
			for _, server := range []string{"20.1.2.3:443", "[2603:1000::3]:443"} {
				t.Run(server, func(t *testing.T) { f(t, b, server) })
			}
		})
	}
}

func newBench(t testing.TB, gso bool) *bench {
	b := &bench{
		t: t, client: netnstest.New(t), gateway: netnstest.New(t), hop: netnstest.New(t), web: netnstest.New(t),
		accepted: make(chan *recorded, 100),
	}
	chain := []*netns.NS{b.client, b.gateway, b.hop, b.web}
	nets := [][2]string{{"10.224.0.%d", "fd00:1::%d"}, {"20.0.0.%d", "2603:1020:ffff::%d"}, {"20.0.1.%d", "2603:1020:fffe::%d"}}
	for i, n := range nets {
		left, right := netns.End{NS: chain[i], Name: "right"}, netns.End{NS: chain[i+1], Name: "left"}
		for f, bits := range []int{24, 64} {
			left.Addrs = append(left.Addrs, netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf(n[f], 4)), bits))
			right.Addrs = append(right.Addrs, netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf(n[f], 1)), bits))
		}
		must(t, netns.Veth(left, right))
		must(t, chain[i].GSO("right", gso))
		must(t, chain[i+1].GSO("left", gso))
		for f, all := range prefixes("0.0.0.0/0", "::/0") {
			must(t, chain[i].Route(all, right.Addrs[f].Addr()))
			if i > 0 { // back to the client
				must(t, chain[i+1].Route(prefixes("10.224.0.0/24", "fd00:1::/64")[f], left.Addrs[f].Addr()))
				if i == 2 {
					must(t, b.web.Route(prefixes("20.0.0.0/24", "2603:1020:ffff::/64")[f], left.Addrs[f].Addr()))
				}
			}
		}
	}
	for _, router := range []*netns.NS{b.gateway, b.hop} {
		must(t, router.Sysctl("net/ipv4/ip_forward", "1"))
		must(t, router.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	}
	must(t, b.web.Own(netip.MustParsePrefix("20.1.0.0/16")))
	must(t, b.web.Own(netip.MustParsePrefix("2603:1000::/48")))
	b.serve()
	return b
}

// follow joins the gateway to the kernel, as the command does.
func (b *bench) follow() {
	t, policy, names, numbers := b.t, policyOf(b.t, "core/mcr https://mcr.microsoft.com:443"), &Bindings{}, &Numbers{}
	must(t, numbers.Assign(policy))
	for _, a := range []netip.AddrPort{shared, shared6} {
		for _, n := range []egress.Name{good, evil} {
			names.Learn(time.Now(), []egress.Binding{{Scope: "prod", Name: n, Addr: a.Addr(), Expires: time.Now().Add(time.Hour)}})
		}
	}
	var q *kernel.Queue
	var resets *kernel.Resetter
	must(t, b.gateway.Do(func() error {
		features, err := kernel.Probe()
		if err != nil {
			return err
		}
		rules, err := kernel.Plan(policy, kernel.Settings{
			Clusters: []kernel.Cluster{{Name: "prod"}, {Name: "watched"}}, Number: numbers.Number,
			Queue: queue, Observe: queue + 1, Log: 1, Masquerade: true, Features: features,
		})
		if err != nil {
			return err
		}
		table, err := kernel.OpenTable()
		if err != nil {
			return err
		}
		t.Cleanup(func() { table.Close() })
		if err := table.Apply(rules, nil); err != nil {
			return err
		}
		if q, err = kernel.OpenQueue(queue, kernel.QueueOptions{}); err != nil {
			return err
		}
		resets, err = kernel.OpenResetter()
		return err
	}))
	mark := func(state kernel.State) func(egress.Conn, egress.Verdict) uint32 {
		return func(_ egress.Conn, v egress.Verdict) uint32 { return uint32(kernel.NewMark(state, numbers.Of(v.Rule))) }
	}
	f := New(Config{
		Policy: func() *egress.Policy { return policy }, Bindings: names,
		Verdict: func(id uint32, accept bool, mark uint32) { q.Verdict(id, accept, kernel.Mark(mark)) },
		Reset:   q.Behind,
		Decided: func(f egress.Flow) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.flows = append(b.flows, f)
		},
		Allowed: mark(kernel.Allowed), Passed: mark(kernel.Passed), Cut: uint32(kernel.NewMark(kernel.Cut, 0)),
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- q.Run(ctx, kernel.Handler{
			Tick: f.Tick,
			Packets: func(batch []kernel.Packet) {
				now := time.Now()
				for _, p := range batch {
					f.Packet(now, p.ID, p.Payload)
				}
			},
			Behind: func(p []byte) {
				if err := resets.Send(p); err != nil {
					t.Error(err)
				}
			},
		})
	}()
	t.Cleanup(func() {
		stop()
		must(t, errors.Join(<-ended, q.Close(), resets.Close()))
	})
}

// recorded is a connection of the server's, with all that it has read.
type recorded struct {
	net.Conn
	mu  sync.Mutex
	got bytes.Buffer
	err error // the first, of a read or of a write

	name egress.Name // that its TLS has read
}

func (r *recorded) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got.Write(p[:n])
	r.err = cmp.Or(r.err, err)
	return n, err
}

func (r *recorded) Write(p []byte) (int, error) {
	n, err := r.Conn.Write(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = cmp.Or(r.err, err)
	return n, err
}

// serve is a TLS server that says everything back, with P-256 alone, so that a client that has not
// guessed it is asked for a second hello.
func (b *bench) serve() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(b.t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "every name"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(b.t, err)
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"konnectivity"}}
	retry := config.Clone()
	retry.CurvePreferences = []tls.CurveID{tls.CurveP256}
	config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		r := h.Conn.(*recorded)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.name = egress.MustParseName(h.ServerName)
		if len(h.SupportedProtos) > 0 && h.SupportedProtos[0] == "retry" {
			return retry, nil
		}
		return nil, nil
	}
	retry.NextProtos = []string{"retry"}
	var l net.Listener
	must(b.t, b.web.Do(func() (err error) { l, err = net.Listen("tcp", ":443"); return err }))
	b.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r := &recorded{Conn: c}
			b.accepted <- r
			go func() {
				defer c.Close()
				s := tls.Server(r, config)
				_, _ = io.Copy(s, s)
			}()
		}
	}()
}

func (b *bench) dial(server string) (c net.Conn) {
	b.t.Helper()
	must(b.t, b.client.Do(func() (err error) {
		c, err = (&net.Dialer{Timeout: patience}).Dial("tcp", server)
		return err
	}))
	b.t.Cleanup(func() { c.Close() })
	must(b.t, c.SetDeadline(time.Now().Add(patience)))
	return c
}

// lastFlow waits for what was decided since the last call.
func (b *bench) lastFlow() string {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		b.mu.Lock()
		flows := b.flows
		b.flows = nil
		b.mu.Unlock()
		if len(flows) > 0 {
			return flows[0].Verdict.String()
		}
	}
	return "nothing"
}

// cutter is a connection that writes in its own way, and records what it writes.
type cutter struct {
	net.Conn
	piece   int // of a write, in bytes; 0 is all
	record  int // of the first write, which is a ClientHello: the content of its records
	written bytes.Buffer
}

func (c *cutter) Write(b []byte) (int, error) {
	out := b
	if c.record > 0 && c.written.Len() == 0 {
		out = wiretest.Records(b[5:], c.record)
	}
	c.written.Write(out)
	piece := c.piece
	if piece == 0 || c.written.Len() > 80<<10 {
		piece = len(out)
	}
	for len(out) > 0 {
		n, err := c.Conn.Write(out[:min(piece, len(out))])
		if err != nil {
			return 0, err
		}
		out = out[n:]
	}
	return len(b), nil
}

// TestRealClients holds crypto/tls over real TCP against a real server: what the client wrote has to
// arrive, byte by byte, and the connection has to go on.
func TestRealClients(t *testing.T) {
	// long is a list of protocols that makes a hello of about n bytes.
	long := func(n int) []string {
		protos := []string{"konnectivity"}
		for range n / 250 {
			protos = append(protos, strings.Repeat("x", 249))
		}
		return protos
	}
	eachWay(t, func(t *testing.T, b *bench, server string) {
		for _, tt := range []struct {
			name   string
			config *tls.Config
			cut    cutter
		}{
			{"post-quantum", &tls.Config{}, cutter{}},
			{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, cutter{}},
			{"ALPN konnectivity", &tls.Config{NextProtos: []string{"konnectivity", "h2"}}, cutter{}},
			{"a HelloRetryRequest", &tls.Config{NextProtos: []string{"retry"}}, cutter{}},
			{"a HelloRetryRequest, in pieces", &tls.Config{NextProtos: []string{"retry"}}, cutter{piece: 100}},
			{"in 1-byte writes", &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}}, cutter{piece: 1}},
			{"post-quantum in 1-byte writes", &tls.Config{}, cutter{piece: 1}},
			{"in 16 records", &tls.Config{}, cutter{record: 110}},
			{"15 KB", &tls.Config{NextProtos: long(15000)}, cutter{}},
			{"17 KB", &tls.Config{NextProtos: long(17000)}, cutter{}},
			{"60 KB", &tls.Config{NextProtos: long(60000)}, cutter{}},
			{"60 KB in pieces", &tls.Config{NextProtos: long(60000)}, cutter{piece: 700}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				cut := tt.cut
				cut.Conn = b.dial(server)
				tt.config.ServerName, tt.config.InsecureSkipVerify = good.String(), true
				c := tls.Client(&cut, tt.config)
				_, err := io.WriteString(c, "ping")
				if err == nil {
					_, err = io.ReadFull(c, make([]byte, 4))
				}
				if verdict := b.lastFlow(); err != nil || verdict != "allow name-rule core/mcr" {
					t.Fatalf("%v; %s", err, verdict)
				}
				s := <-b.accepted
				s.mu.Lock()
				defer s.mu.Unlock()
				t.Logf("%d bytes", cut.written.Len())
				if !bytes.Equal(s.got.Bytes(), cut.written.Bytes()) {
					t.Errorf("the server got %d bytes, and %d were written", s.got.Len(), cut.written.Len())
				}
			})
		}
	})
}

// TestRealDenials looks at both ends of connections that are denied.
func TestRealDenials(t *testing.T) {
	eachWay(t, func(t *testing.T, b *bench, server string) {
		denied := wiretest.PostQuantum(evil.String()).Bytes()
		for _, tt := range []struct {
			name  string
			send  func(c net.Conn)
			want  string
			bytes func(n int) bool // what the server may have got
		}{
			{"a denied name", func(c net.Conn) { c.Write(denied) }, "deny name-not-allowed", func(n int) bool { return n == 0 }},
			{"a denied name in 1-byte writes", func(c net.Conn) {
				for i := range denied {
					if _, err := c.Write(denied[i : i+1]); err != nil {
						return
					}
				}
			}, "deny name-not-allowed", func(n int) bool { return n < len(denied) }},
			{"not TLS", func(c net.Conn) { io.WriteString(c, "GET / HTTP/1.1\r\n\r\n") }, "deny not-tls", func(n int) bool { return n == 0 }},
			{"another name in the second hello", func(c net.Conn) {
				first := wiretest.Client(good.String(), wiretest.ALPN("retry"), wiretest.NoKeyShare()).Bytes()
				c.Write(first)
				if _, err := c.Read(make([]byte, 16<<10)); err != nil {
					t.Error(err)
				}
				c.Write(wiretest.Client(evil.String(), wiretest.ALPN("retry"), wiretest.KeyShare(wiretest.P256, 65)).Bytes())
			}, "deny server-name-changed", func(n int) bool { return n < 400 }},
		} {
			t.Run(tt.name, func(t *testing.T) {
				c := b.dial(server)
				s := <-b.accepted
				tt.send(c)
				if _, err := io.Copy(io.Discard, c); !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("the client: %v, want a reset", err)
				}
				if verdict := b.lastFlow(); verdict != tt.want {
					t.Errorf("%s, want %s", verdict, tt.want)
				}
				for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
					s.mu.Lock()
					got, err := s.got.Len(), s.err
					s.mu.Unlock()
					if errors.Is(err, unix.ECONNRESET) && tt.bytes(got) {
						return
					}
					if time.Now().After(end) {
						t.Fatalf("the server: %d bytes and %v, want a reset", got, err)
					}
				}
			})
		}
	})
}
