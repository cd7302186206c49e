//go:build linux

package fault

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"tidegate.io/tidegate/lab"
)

// policyRows are what can happen to the policy, in the file and in the kernel.
func policyRows() []Row {
	return []Row{
		{
			Number: 7, Name: "bad-files", Fault: "200 broken variants of the gateway's file",
			Expect: "each refused as a whole; none touches the rules",
			Inject: badFiles, Times: 1,
		},
		{
			Number: 8, Name: "half-applied", Fault: "kill -9 in the middle of a reload of 5,000 addresses, at a random moment",
			Expect: "the rules in the kernel are the old ones or the new ones, never some of both",
			Inject: halfApplied, Undo: restart, Times: 20, MayFail: true,
		},
		{
			Number: 9, Name: "flush", Fault: "another program says flush ruleset",
			Expect: "the table is the process's own, and is not touched; on kernels before 6.9 it is back at once, and nothing passes meanwhile",
			Inject: flush, For: 500 * time.Millisecond, Times: 20, Quick: 1, Soak: true, Blackout: time.Second,
			Check: func(ctx context.Context, s *Site) error {
				st, err := s.status(ctx)
				s.figure("times the rules were put back", "%d", st.Mended)
				return err
			},
		},
		{
			Number: 9, Name: "flush-dead", Fault: "another program says flush ruleset while the process is dead",
			Expect: "the service manager has the table's socket, so that nothing is touched; before 6.9 as in the next row, with its losses",
			Inject: func(ctx context.Context, s *Site) error {
				owned, err := s.owned()
				if err = errors.Join(err, killAndFlush(ctx, s)); err != nil {
					return err
				}
				if left, err := s.rules(); err != nil || owned && left == 0 {
					return errors.Join(err, errors.New("the flush has removed the rules"))
				}
				return nil
			}, Undo: restart,
			For: time.Second, Rest: 3 * time.Second, Times: 5, Quick: 1, MayFail: true,
		},
		{
			Number: 9, Name: "flush-alone", Fault: "the same, where no service manager keeps the socket",
			Expect: "a gate of policy rules holds: nothing is forwarded until the start",
			Inject: killAndFlush, Undo: restart, Unkept: true,
			For: time.Second, Rest: 3 * time.Second, Times: 5, Quick: 1, MayFail: true, MayLose: true, Check: noteTranslation,
		},
		{
			Number: 9, Name: "flush-stopped", Fault: "another program says flush ruleset while the gateway is stopped",
			Expect: "a gate of policy rules holds, which the process has left: nothing is forwarded until the start",
			Inject: func(ctx context.Context, s *Site) error { s.StopGateway(); return flush(ctx, s) }, Undo: restart,
			For: time.Second, Rest: 3 * time.Second, Times: 5, Quick: 1, MayFail: true, MayLose: true, Check: noteTranslation,
		},
		{
			Number: 9, Name: "divert", Fault: "another program removes the rules that lead questions and web requests to the gateway",
			Expect: "refused by the kernel; before 6.9 put back, and both fail closed meanwhile",
			Inject: func(_ context.Context, s *Site) error { return s.inNftables(s.GatewayBox(), s.flushDiversion) },
			For:    1500 * time.Millisecond, Times: 5, Quick: 1, Soak: true, MayFail: true,
			Check: func(ctx context.Context, s *Site) error {
				if err := s.new.get(ctx, false); err != nil {
					return fmt.Errorf("a web request afterwards: %w", err)
				}
				return nil
			},
		},
		{
			Number: 10, Name: "reload-storm", Fault: "one changed policy after the other for 4 s, as fast as they go",
			Expect: "nothing fails and nothing is lost",
			Inject: reloadStorm, Times: 2, Soak: true, Slowdown: 10, Blackout: time.Second,
		},
		{
			Number: 11, Name: "huge-policy", Fault: "a policy with 100,000 more addresses comes, and goes",
			Expect: "new connections are decided meanwhile",
			Inject: hugePolicy, Times: 2, Blackout: 2 * time.Second,
		},
		{
			Number: 12, Name: "revoke", Fault: "a rule with 40 live connections is removed",
			Expect: "all of them end within a second, and no others",
			Inject: revoke, Times: 5, Quick: 1,
		},
		{
			Number: 13, Name: "revoke-held", Fault: "a rule is removed while half a ClientHello for it is held",
			Expect: "the other half is denied",
			Inject: revokeHeld, Times: 5, Quick: 1,
		},
	}
}

// badFiles mutates lines of the file until they cannot be read, and brings each up.
func badFiles(ctx context.Context, s *Site) error {
	random := rand.New(rand.NewPCG(1, 7))
	before, err := s.ruleHandles()
	if err != nil {
		return err
	}
	const files = 200
	refused, same := 0, 0
	for refused < files {
		text := mutate(random, s.file)
		if err := s.write(text); err != nil {
			return err
		}
		if _, _, err := s.conf.Read(s.dir); err == nil {
			same++ // a change that means nothing, such as in a name
			continue
		}
		out, code, err := s.command(ctx, "reload")
		if err != nil {
			return err
		}
		if code == 0 {
			return fmt.Errorf("a broken file came into force: %s\n%s", out, text)
		}
		refused++
	}
	after, err := s.ruleHandles()
	if err == nil && before != after {
		err = errors.New("a file that was refused has touched the rules in the kernel")
	}
	s.figure("files refused", "%d", refused)
	return errors.Join(err, s.write(s.file), s.reload(ctx, s.file))
}

// mutate breaks a text in one place.
func mutate(random *rand.Rand, text string) string {
	lines := strings.SplitAfter(text, "\n")
	i := random.IntN(len(lines))
	switch line := lines[i]; random.IntN(6) {
	case 0:
		lines[i] = line + line // a key twice
	case 1:
		lines[i] = strings.Replace(line, ":", "", 1)
	case 2:
		lines[i] = " " + line
	case 3:
		lines[i] = strings.ToUpper(line)
	case 4:
		lines[i] = line[:random.IntN(len(line)+1)]
	default:
		b := []byte(line)
		if len(b) > 0 {
			b[random.IntN(len(b))] ^= 1 << random.IntN(8)
		}
		lines[i] = string(b)
	}
	return strings.Join(lines, "")
}

// addresses is a rule with n addresses from the first to be appended to the file.
func addresses(n int) string {
	var b strings.Builder
	b.WriteString("  - id: many\n    to:\n")
	for i := range n {
		fmt.Fprintf(&b, "      - tcp://21.%d.%d.%d:9000\n", i>>16&255, i>>8&255, i&255)
	}
	return b.String()
}

func halfApplied(ctx context.Context, s *Site) error {
	whole := map[int]bool{}
	n, err := s.rules()
	if err != nil {
		return err
	}
	whole[n] = true
	extra := addresses(5000) + "  - {id: more, to: [\"tcp://more.example.org:9002\"]}\n"
	if err := s.reload(ctx, s.file+extra); err != nil {
		return err
	}
	if n, err = s.rules(); err != nil {
		return err
	}
	whole[n] = true
	if len(whole) != 2 {
		return errors.New("the two policies cannot be told apart by the number of their rules")
	}
	if err := s.write(s.file); err != nil {
		return err
	}
	if err := s.SignalGateway(syscall.SIGHUP); err != nil {
		return err
	}
	time.Sleep(time.Duration(rand.IntN(int(60 * time.Millisecond))))
	s.KillGateway()
	if n, err = s.rules(); err == nil && !whole[n] {
		err = fmt.Errorf("a reload that was killed left %d rules, which is neither policy", n)
	}
	return err
}

func killAndFlush(ctx context.Context, s *Site) error { s.KillGateway(); return flush(ctx, s) }

// noteTranslation says why established connections are lost with the rules.
func noteTranslation(_ context.Context, s *Site) error {
	s.figure("established", "answers that come without the rules meet no translation, and the gateway's own TCP resets them")
	return nil
}

func flush(_ context.Context, s *Site) error { return s.inNftables(s.GatewayBox(), flushAll) }

// reloadStorm changes the policy again and again.
func reloadStorm(ctx context.Context, s *Site) error {
	const storm = 4 * time.Second
	n := 0
	for end := time.Now().Add(storm); time.Now().Before(end); n++ {
		if err := s.write(s.file + extraRule(n)); err != nil {
			return err
		}
		if err := s.swap(ctx); err != nil {
			return err
		}
	}
	s.figure("policies in 4 s", "%d", n)
	if err := s.write(s.file); err != nil {
		return err
	}
	return s.swap(ctx)
}

// extraRule is one of each kind in turn, on the services of other rules and on new ones.
func extraRule(i int) string {
	to := []string{
		"https://extra%d.example.org:443", "tcp://20.103.9.%d:9000", "tcp://extra%d.example.org:9001",
		"http://extra%d.example.org:80", "udp://20.103.4.%d:1194", "https://extra%d.example.org:8443",
	}[i%6]
	return fmt.Sprintf("  - {id: extra, to: [%q]}\n", fmt.Sprintf(to, i%250))
}

func hugePolicy(ctx context.Context, s *Site) error {
	const n = 100_000
	began := time.Now()
	if err := s.reload(ctx, s.file+addresses(n)); err != nil {
		return err
	}
	s.figure("time to bring 100,000 addresses into force", "%d ms", time.Since(began).Milliseconds())
	began = time.Now()
	err := s.reload(ctx, s.file)
	s.figure("and to take them back", "%d ms", time.Since(began).Milliseconds())
	return err
}

// without is the file without one of its own rules.
func (s *Site) without(id string) string {
	var b strings.Builder
	for line := range strings.Lines(s.file) {
		if !strings.Contains(line, "{id: "+id+",") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// cutWithin is what the gateway promises.
const cutWithin = time.Second

func revoke(ctx context.Context, s *Site) error {
	const conns = 40
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for i := range conns {
		addr, err := s.find(ctx, shopName, i%2 == 1)
		if err != nil {
			return err
		}
		c, err := s.visit(ctx, shopName, netip.AddrPortFrom(addr, 443))
		if err != nil {
			return err
		}
		open = append(open, c)
	}
	var mu sync.Mutex
	var ends sync.WaitGroup
	cut, slowest := 0, time.Duration(0)
	began := time.Now()
	for _, c := range open {
		ends.Go(func() {
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			_, err := io.Copy(io.Discard, c)
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, syscall.ECONNRESET) {
				cut++
				slowest = max(slowest, time.Since(began))
			}
		})
	}
	if err := s.reload(ctx, s.without("web")); err != nil {
		return err
	}
	ends.Wait()
	s.figure("connections cut", "%d of %d", cut, conns)
	s.figure("the last of them after", "%d ms", slowest.Milliseconds())
	err := s.reload(ctx, s.file)
	if cut < conns {
		err = errors.Join(err, fmt.Errorf("of %d connections of a removed rule %d were cut", conns, cut))
	}
	if slowest > cutWithin {
		s.miss("the last connection ended after %d ms, goal %d ms", slowest.Milliseconds(), cutWithin.Milliseconds())
	}
	return err
}

// shopName is that of rule web.
const shopName = "shop.example.org"

// visit shakes hands and makes one request on a connection that stays open.
func (s *Site) visit(ctx context.Context, name string, to netip.AddrPort) (net.Conn, error) {
	raw, err := s.Node(1).Dial(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, &tls.Config{RootCAs: s.CA.Pool(), ServerName: name, NextProtos: []string{"http/1.1"}})
	err = c.HandshakeContext(ctx)
	if err == nil {
		_, err = io.WriteString(c, "HEAD / HTTP/1.1\r\nHost: "+name+"\r\n\r\n")
	}
	if err == nil {
		_, err = c.Read(make([]byte, 4096))
	}
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return c, nil
}

// firstFlight is what a TLS client of name says first.
func firstFlight(name string) []byte {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() {
		defer ours.Close()
		_ = tls.Client(ours, &tls.Config{ServerName: name, MinVersion: tls.VersionTLS13}).Handshake()
	}()
	buf := make([]byte, 16<<10)
	n, _ := theirs.Read(buf)
	return buf[:n]
}

// revokeHeld sends half a hello, takes the rule away, and sends the other half.
func revokeHeld(ctx context.Context, s *Site) error {
	addr, err := s.find(ctx, shopName, false)
	if err != nil {
		return err
	}
	c, err := s.Node(1).Dial(ctx, "tcp", netip.AddrPortFrom(addr, 443))
	if err != nil {
		return err
	}
	defer c.Close()
	hello := firstFlight(shopName)
	if len(hello) < 100 {
		return errors.New("no ClientHello to send")
	}
	if _, err := c.Write(hello[:len(hello)-50]); err != nil {
		return err
	}
	if err := pause(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	if err := s.reload(ctx, s.without("web")); err != nil {
		return err
	}
	_, _ = c.Write(hello[len(hello)-50:])
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
	n, err := c.Read(make([]byte, 100))
	if n > 0 || !errors.Is(err, syscall.ECONNRESET) {
		err = fmt.Errorf("a hello that was held while its rule was removed: %d bytes of an answer, %w", n, err)
	} else {
		err = nil
	}
	saw := s.Record.Find(func(x *lab.Seen) bool { return x.Whole && bytes.Equal(x.Data, hello) })
	if len(saw) > 0 {
		err = errors.Join(err, errors.New("a hello that was held while its rule was removed reached the server"))
	}
	return errors.Join(err, s.reload(ctx, s.file))
}

// swap brings the file into force by the control socket, which is quicker than a command.
func (s *Site) swap(ctx context.Context) error {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.dir+"/state/control.sock")
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://gateway/reload", nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("reload: answered %d: %s", resp.StatusCode, text)
	}
	return nil
}
