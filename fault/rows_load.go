//go:build linux

package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tidegate.io/tidegate/wire"
)

// loadRows are what too much traffic of one client can do to the others.
func loadRows() []Row {
	return []Row{
		{
			Number: 14, Name: "queue-flood", Fault: "one node sends 20,000 SYNs a second to a permitted server for 5 s",
			Expect: "bounded in the kernel by client; the other node notices nothing",
			Inject: func(ctx context.Context, s *Site) error {
				return s.otherNode(ctx, func() error {
					ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
					defer cancel()
					return s.floodSYNs(ctx, s.Node(1).Addrs[:1], permittedName, 20_000)
				})
			},
			Check: afterFlood, Times: 1, MayFail: true,
		},
		{
			Number: 15, Name: "small-buffer", Fault: "the queues' sockets hold 4 KB, and a node sends 5,000 SYNs a second",
			Expect: "lost packets are sent again; the process stays, nothing passes",
			Inject: func(ctx context.Context, s *Site) error {
				if err := s.shrinkBuffers(4096); err != nil {
					return err
				}
				s.inBackground(ctx, func(ctx context.Context) error { return s.floodSYNs(ctx, s.Node(1).Addrs[:1], permittedName, 5000) })
				return nil
			},
			Undo: undone, For: 3 * time.Second, Check: afterOverflow, Times: 1, MayFail: true,
		},
		{
			Number: 16, Name: "conntrack-full", Fault: "pods open datagram flows to permitted addresses until conntrack is full",
			Expect: "none is lost; the number of entries is told; new ones push out what was never answered",
			Inject: fillConntrack, Check: afterFlood, Times: 1, MayFail: true,
		},
		{
			Number: 17, Name: "syn-flood", Fault: "one node sends 50,000 SYNs a second to an address that a rule permits without a look",
			Expect: "the other node notices nothing; what is never answered is forgotten soon",
			Inject: func(ctx context.Context, s *Site) error {
				return s.otherNode(ctx, func() error {
					ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
					defer cancel()
					err := s.flood(ctx, s.Node(1), "SYNs", 50_000, syns(s.Node(1).Addrs[:1], netip.MustParseAddrPort("20.103.4.5:9000")))
					n, e := s.conntrackEntries()
					s.figure("entries at the end of the flood", "%d", n)
					return errors.Join(err, e)
				})
			},
			Check: afterFlood, Times: 1,
		},
		{
			Number: 18, Name: "memory", Fault: "a limit of 256 MB, and 50,000 half ClientHellos from 40 pods",
			Expect: "it is not killed, and the other node notices nothing",
			Inject: func(ctx context.Context, s *Site) error {
				peak, err := s.capMemory(256 << 20)
				if err != nil {
					return err
				}
				pid := s.GatewayPID()
				err = s.otherNode(ctx, func() error { return s.halfHellos(ctx, 5, 10_000, 40) })
				s.figure("most memory", "%d MB", peak()>>20)
				if s.GatewayPID() != pid {
					err = errors.Join(err, errors.New("the gateway was killed"))
				}
				return err
			},
			Undo: undone, Check: afterFlood, Times: 1, MayFail: true,
		},
		{
			Number: 20, Name: "slow-hellos", Fault: "10,000 connections that send one byte of a ClientHello",
			Expect: "forgotten after 5 s, both ends told; the other node notices nothing",
			Inject: func(ctx context.Context, s *Site) error {
				return s.otherNode(ctx, func() error { return s.halfHellos(ctx, 1, 10_000, 8) })
			},
			Check: afterFlood, Times: 1, MayFail: true,
		},
	}
}

// afterFlood waits until the gateway has forgotten what was never decided, and says what was refused and dropped.
func afterFlood(ctx context.Context, s *Site) error {
	var st status
	var err error
	began := time.Now()
	calm := until(ctx, 40*time.Second, func() bool {
		st, err = s.status(ctx)
		return err == nil && st.followed() < 50
	})
	if err != nil {
		return err
	}
	s.figure("time until it follows less than 50 connections", "%.1f s", time.Since(began).Seconds())
	s.figure("packets dropped by the queue", "%d", st.dropped())
	for reason, n := range st.Refused {
		if n > 1000 {
			s.figure("packets refused: "+reason, "%d", n)
		}
	}
	if !calm {
		return fmt.Errorf("long after the flood %d connections are followed", st.followed())
	}
	if err := s.new.handshake(ctx, false); err != nil {
		return fmt.Errorf("after its flood the client gets no connection: %w", err)
	}
	return nil
}

// afterOverflow is afterFlood for one that a queue had no room for.
func afterOverflow(ctx context.Context, s *Site) error {
	st, err := s.status(ctx)
	if err == nil && st.dropped() == 0 {
		s.notMade("the queues did not run over")
	}
	return errors.Join(err, afterFlood(ctx, s))
}

// conntrackEntries counts what the gateway's kernel tracks.
func (s *Site) conntrackEntries() (n int, err error) {
	err = s.DoGateway(func() error {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err != nil {
			return err
		}
		n, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err
	})
	return n, err
}

func conntrackMax() (int, error) {
	text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// fillConntrack makes pods send datagrams that rule datagrams permits, each from and to somewhere else, until nothing more
// fits, and for a moment longer. The destinations are beyond the internet's edge, where nobody answers.
func fillConntrack(ctx context.Context, s *Site) error {
	most, err := conntrackMax()
	if err != nil {
		return err
	}
	if most > 2<<20 {
		return notHere("the machine's nf_conntrack_max is %d, which no test can fill in time, and no namespace can change", most)
	}
	const perPod = 20_000 // the kernel takes about so many at once of each client (kernel.freshBurst)
	pods, _, err := s.pods(most/perPod + 4)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var top atomic.Int64
	go func() {
		full := func() bool {
			n, _ := s.conntrackEntries()
			top.Store(max(top.Load(), int64(n)))
			return n > most*99/100
		}
		if until(ctx, time.Minute, full) {
			_ = pause(ctx, 3*time.Second)
			cancel()
		}
	}()
	err = s.flood(ctx, s.Node(1), "datagrams", 30_000, func(i int) wire.Packet {
		turn := i / len(pods)
		to := netip.AddrFrom4([4]byte{20, 103, 4, byte(100 + turn/mutedCount%150)})
		return wire.Packet{
			Src: netip.AddrPortFrom(pods[i%len(pods)], uint16(mutedPorts+turn%mutedCount)), Dst: netip.AddrPortFrom(to, 1194),
			Proto: wire.UDP, Payload: []byte("fill"),
		}
	})
	s.figure("most entries", "%d of %d", top.Load(), most)
	if err == nil && top.Load() < int64(most)*99/100 {
		s.notMade("conntrack did not fill up: %d of %d entries", top.Load(), most)
	}
	return err
}

// halfHellos begins count hellos from pods, rounds times, of which each sends some bytes and no more.
func (s *Site) halfHellos(ctx context.Context, rounds, count, pods int) error {
	v4, v6, err := s.pods(pods / 2)
	if err != nil {
		return err
	}
	args := []string{"lab", "faults", "hold-half", "--count", strconv.Itoa(count), "--to4", s.new.addrs[permittedName][0].String(), "--to6", s.new.addrs[permittedName][1].String()}
	for _, a := range slices.Concat(v4, v6) {
		args = append(args, a.String())
	}
	begun := 0
	for range rounds {
		n, err := s.runHalf(ctx, args)
		if err != nil {
			return err
		}
		begun += n
	}
	s.figure("half hellos", "%d", begun)
	if begun < rounds*count/2 {
		s.notMade("%d of %d half hellos were begun", begun, rounds*count)
	}
	return nil
}

// runHalf runs the program that holds half hellos, in a process of its own: descriptors are many.
func (s *Site) runHalf(ctx context.Context, args []string) (begun int, err error) {
	cmd := s.conf.Command(args...)
	cmd.Dir = s.dir
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := s.Node(1).Start(cmd); err != nil {
		return 0, err
	}
	_, err = fmt.Fscanln(out, &begun)
	err = errors.Join(err, pause(ctx, time.Second), in.Close(), cmd.Wait())
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		err = fmt.Errorf("half hellos: %w", err)
	}
	return begun, err
}

// HoldHalf is the program that begins count hellos from the addresses given, to one of two servers, prints how many that
// are, and holds them until in is at its end.
func HoldHalf(count int, to4, to6 netip.Addr, from []netip.Addr, in io.Reader, out io.Writer) error {
	const beginning = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
	var open atomic.Int64
	var mu sync.Mutex
	var all []net.Conn // so that none is collected, and closed
	var g errgroup.Group
	g.SetLimit(64)
	for i := range count {
		src, to := from[i%len(from)], to4
		if src.Is6() {
			to = to6
		}
		g.Go(func() error {
			d := net.Dialer{Timeout: 2 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 0))}
			c, err := d.Dial("tcp", netip.AddrPortFrom(to, 443).String())
			if err != nil {
				return nil
			}
			if _, err := io.WriteString(c, beginning); err == nil {
				open.Add(1)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, c)
			return nil
		})
	}
	_ = g.Wait() // no error is returned
	if _, err := fmt.Fprintln(out, open.Load()); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, in)
	for _, c := range all {
		_ = c.Close()
	}
	return nil
}
