//go:build linux

package fault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sync/errgroup"

	"tidegate.io/tidegate/lab"
	"tidegate.io/tidegate/wire"
)

// networkRows are what the network does.
func networkRows() []Row {
	return []Row{
		{
			Number: 34, Name: "small-mtu", Fault: "the path outside takes 1,280 bytes, then the path inside does",
			Expect: "10 MB go both ways, over IPv4 and IPv6; errors about no connection are not passed on",
			Inject: smallMTU, Times: 1, Soak: false,
		},
		{
			Number: 35, Name: "icmp", Fault: "every type of ICMP and ICMPv6 from a client to the internet",
			Expect: "none arrives; errors about a client's own connections are row 34",
			Inject: everyICMP, Times: 1, Quick: 1,
		},
		{
			Number: 36, Name: "ipv6", Fault: "kill -9, flush ruleset and a reload, with IPv6 alone, and extension headers before a SYN",
			Expect: "as IPv4: none lost, nothing evil passes",
			V6:     true, Times: 3, MayFail: true,
			Inject: func(ctx context.Context, s *Site) error {
				s.KillGateway()
				if err := errors.Join(pause(ctx, 200*time.Millisecond), s.RestartGateway(ctx), flush(ctx, s), pause(ctx, 300*time.Millisecond)); err != nil {
					return err
				}
				return errors.Join(s.extensionHeaders(ctx), s.reload(ctx, s.file))
			},
		},
		{
			Number: 37, Name: "ftp", Fault: "a client says PORT on a permitted FTP connection, and the server connects back",
			Expect: "it does not reach the client: no helper opens a hole",
			Inject: ftpPort, Times: 1,
		},
		{
			Number: 38, Name: "snat-full", Fault: "one node takes every port that one server's address can be masqueraded to",
			Expect: "other destinations, and what is established, notice nothing",
			Inject: fillSNAT, Check: afterFlood, Times: 1, MayFail: true,
		},
		{
			Number: 39, Name: "idle", Fault: "20 tunnels of the API server are silent for 45 s (35 min with --long); then an entry of conntrack is lost",
			Expect: "all are alive; the client of a lost entry is told with a reset instead of silence",
			Inject: idle, Times: 1,
		},
		{
			Number: 41, Name: "bad-path", Fault: "of packets outside 5 % are lost, 5 % come twice and 10 % come late and out of order",
			Expect: "no new connection fails and none is denied",
			Inject: impair, Undo: undone, For: 10 * time.Second, Times: 1, Quick: 1, Soak: true,
		},
		{
			Number: 42, Name: "flap", Fault: "the cable outside is pulled for 20 s",
			Expect: "what is established goes on afterwards",
			Inject: func(_ context.Context, s *Site) error { return s.Plug(false) },
			Undo:   func(_ context.Context, s *Site) error { return s.Plug(true) },
			For:    20 * time.Second, Times: 1, MayFail: true,
		},
	}
}

// transfer sends n bytes to an echo server and reads them back, and compares.
func transfer(ctx context.Context, s *Site, to netip.AddrPort, n int) error {
	c, err := s.Node(1).Dial(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(40 * time.Second))
	sent, got := sha256.New(), sha256.New()
	var both errgroup.Group
	both.Go(func() error {
		chunk := make([]byte, 32<<10)
		for left := n; left > 0; left -= len(chunk) {
			binary.BigEndian.PutUint64(chunk, words.Add(1))
			sent.Write(chunk)
			if _, err := c.Write(chunk); err != nil {
				return err
			}
		}
		return nil
	})
	both.Go(func() error { _, err := io.CopyN(got, c, int64(n)); return err })
	if err := both.Wait(); err != nil {
		return fmt.Errorf("transfer of %d bytes to %s: %w", n, to, err)
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		return fmt.Errorf("transfer to %s: other bytes came back", to)
	}
	return nil
}

func smallMTU(ctx context.Context, s *Site) error {
	const small, usual, size = 1280, 1500, 10 << 20
	servers := []netip.AddrPort{netip.MustParseAddrPort("20.103.4.5:9000"), netip.MustParseAddrPort("[2603:1000:7::5]:9000")}
	set := func(inside, outside int) error {
		return errors.Join(s.Edge().MTU("internet", outside), s.VNet().MTU("node1", inside))
	}
	defer func() { _ = set(usual, usual) }()
	for _, at := range [][2]int{{usual, small}, {small, usual}} {
		if err := set(at[0], at[1]); err != nil {
			return err
		}
		for _, to := range servers {
			began := time.Now()
			if err := transfer(ctx, s, to, size); err != nil {
				return fmt.Errorf("inside %d, outside %d: %w", at[0], at[1], err)
			}
			s.figure(fmt.Sprintf("10 MB both ways, inside %d, outside %d, %s", at[0], at[1], [2]string{"IPv4", "IPv6"}[family(to.Addr().Is6())]), "%d ms", time.Since(began).Milliseconds())
		}
	}
	return nil
}

// everyICMP sends a message of each type, with evilWord in it: the servers say what arrives.
func everyICMP(ctx context.Context, s *Site) error {
	node := s.Node(1)
	n := 0
	for _, v6 := range []bool{false, true} {
		network, source := "ip4:icmp", node.Addrs[0]
		if v6 {
			network, source = "ip6:ipv6-icmp", node.Addrs[1]
		}
		var c net.PacketConn
		if err := node.Do(func() (err error) { c, err = net.ListenPacket(network, source.String()); return err }); err != nil {
			return err
		}
		to := &net.IPAddr{IP: s.where(permittedName, v6).AsSlice()}
		for typ := range 256 {
			m := icmp.Message{Type: ipv4.ICMPType(typ), Body: &icmp.RawBody{Data: append([]byte{0, 0, 0, 0}, evilWord...)}}
			if v6 {
				m.Type = ipv6.ICMPType(typ)
			}
			var pseudo []byte
			if v6 {
				pseudo = icmp.IPv6PseudoHeader(source.AsSlice(), to.IP)
			}
			b, err := m.Marshal(pseudo)
			if err != nil {
				return errors.Join(err, c.Close())
			}
			if _, err := c.WriteTo(b, to); err == nil {
				n++
			}
			s.evil.tried.Add(1)
			if err := pause(ctx, time.Millisecond); err != nil {
				return errors.Join(err, c.Close())
			}
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	s.figure("messages", "%d", n)
	return nil
}

// extensionHeaders sends SYNs behind hop-by-hop, routing and destination options to a permitted server. None may reach
// it, so that the kernel tracks no connection from their ports.
func (s *Site) extensionHeaders(ctx context.Context) error {
	const hopByHop, routing, destination = 0, 43, 60
	before, err := s.refused(ctx, "invalid-packet")
	if err != nil {
		return err
	}
	headers := []byte{hopByHop, routing, destination}
	for _, header := range headers {
		src := netip.AddrPortFrom(s.Node(1).Addrs[1], uint16(mutedPorts+rand.IntN(mutedCount)))
		syn := wire.AppendPacket(nil, wire.Packet{
			Src: src, Dst: netip.AddrPortFrom(s.new.addrs[permittedName][1], 443), Proto: wire.TCP, Flags: wire.SYN, Seq: 1, Window: 65535,
		})
		const fixed, tcp, padN = 40, 6, 1
		options := []byte{tcp, 0, padN, 4, 0, 0, 0, 0}
		if header == routing {
			options = []byte{tcp, 0, 4, 0, 0, 0, 0, 0}
		}
		b := append(append(bytes.Clone(syn[:fixed]), options...), syn[fixed:]...)
		b[6] = header
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-fixed))
		if err := s.sendRaw(b); err != nil {
			return err
		}
	}
	if err := pause(ctx, 200*time.Millisecond); err != nil {
		return err
	}
	after, err := s.refused(ctx, "invalid-packet")
	if err == nil && after < before+uint64(len(headers)) {
		err = fmt.Errorf("of %d SYNs behind extension headers %d were refused", len(headers), after-before)
	}
	return err
}

// ftpPort says PORT where a helper would listen, and then tries to come in as the server.
func ftpPort(ctx context.Context, s *Site) error {
	control, err := s.Node(1).Dial(ctx, "tcp", netip.MustParseAddrPort("20.103.4.6:21"))
	if err != nil {
		return err
	}
	defer control.Close()
	var data net.Listener
	if err := s.Node(1).Do(func() (err error) { data, err = net.Listen("tcp", s.Node(1).Addrs[0].String()+":0"); return err }); err != nil {
		return err
	}
	defer data.Close()
	port := data.Addr().(*net.TCPAddr).Port
	a := s.Node(1).Addrs[0].As4()
	command := fmt.Sprintf("PORT %d,%d,%d,%d,%d,%d\r\n", a[0], a[1], a[2], a[3], port>>8, port&255)
	if _, err := io.WriteString(control, command); err != nil {
		return err
	}
	_ = control.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(control, make([]byte, len(command))); err != nil { // the lab's servers echo
		return fmt.Errorf("say PORT: %w", err)
	}
	came := make(chan bool, 1)
	go func() {
		c, err := data.Accept()
		if err == nil {
			_ = c.Close()
		}
		came <- err == nil
	}()
	for _, to := range []netip.Addr{lab.GatewayOutside[0], s.Node(1).Addrs[0]} {
		err := s.DoInternet(func() error {
			d := net.Dialer{Timeout: 500 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: net.IP{20, 103, 4, 6}, Port: 20}}
			c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(to, uint16(port)).String())
			if err == nil {
				return errors.Join(fmt.Errorf("a server connected to %s after PORT", to), c.Close())
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	_ = data.Close()
	if <-came {
		return errors.New("a client was reached from outside after PORT")
	}
	return nil
}

// fillSNAT opens more than 64,512 connections to one address and port, from pods.
func fillSNAT(ctx context.Context, s *Site) error {
	most, err := conntrackMax()
	if err != nil {
		return err
	}
	if most < 100_000 {
		return notHere("the machine's nf_conntrack_max is %d, less than there are ports", most)
	}
	pods, _, err := s.pods(14)
	if err != nil {
		return err
	}
	to := netip.MustParseAddrPort("20.103.4.5:9000")
	total := len(pods) * mutedCount
	return s.otherNode(ctx, func() error {
		limited, cancel := context.WithTimeout(ctx, time.Duration(total)*time.Second/20_000)
		defer cancel()
		err := s.flood(limited, s.Node(1), "SYNs from different ports", 20_000, syns(pods, to))
		n, e := s.conntrackEntries()
		s.figure("entries", "%d", n)
		began := time.Now()
		dial, stop := context.WithTimeout(ctx, 4*time.Second)
		defer stop()
		c, e2 := s.Node(2).Dial(dial, "tcp", to)
		if e2 == nil {
			_ = c.Close()
			s.notMade("there are ports left")
		}
		s.figure("another connection to the same address", "%v after %d ms", e2 == nil, time.Since(began).Milliseconds())
		return errors.Join(err, e)
	})
}

// idle leaves tunnels alone: the goal is 35 minutes, for Azure's own limit is four, or thirty where one asks for it.
func idle(ctx context.Context, s *Site) error {
	const tunnels = 20
	targets, err := s.targets(ctx, false)
	if err != nil {
		return err
	}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for i := range tunnels {
		c, err := establish(ctx, fromNode(s.Node(1)), s.CA.Pool(), targets[i%2*len(targets)/2]) // the API server's, IPv4 and IPv6
		if err != nil {
			return err
		}
		conns = append(conns, c)
	}
	silence := 45 * time.Second
	if s.conf.Long {
		silence = 35 * time.Minute
	}
	if err := pause(ctx, silence); err != nil {
		return err
	}
	for _, c := range conns {
		if err := sayWord(c, "tcp"); err != nil {
			return fmt.Errorf("a tunnel that was silent for %v: %w", silence, err)
		}
	}
	s.figure("silent for", "%v", silence)
	return s.lostEntry(ctx, conns[0])
}

// impair makes the path beyond the edge a bad one.
func impair(ctx context.Context, s *Site) error {
	p, err := openPath(s)
	if err != nil {
		return err
	}
	s.later(p.report) // which is undone last
	s.inBackground(ctx, p.run)
	return nil
}
