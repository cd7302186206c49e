//go:build linux

package lab

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/internal/netns"
)

// The ports from rawPorts on belong to connections that are made by hand. The node's kernel has no socket for them and
// would reset them; muteResets drops what it sends, and lets pass what carries rawMark.
const (
	rawPorts = 60000
	rawMark  = 0x1ab
)

// muteResets keeps the kernel of a node out of the connections made by hand.
func muteResets(n *netns.NS) error {
	c, err := nftables.New(nftables.WithNetNSFd(int(n.File().Fd())))
	if err != nil {
		return fmt.Errorf("open nftables on a node: %w", err)
	}
	table := c.AddTable(&nftables.Table{Name: "lab", Family: nftables.TableFamilyINet})
	chain := c.AddChain(&nftables.Chain{
		Name: "mute", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter,
	})
	const sourcePort, flags, flagRST = 0, 13, 4
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, rawMark)},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: sourcePort, Len: 2},
		&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: binary.BigEndian.AppendUint16(nil, rawPorts)},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: flags, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{flagRST}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0}},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("mute a node's resets: %w", err)
	}
	return nil
}

// TCP flags (RFC 9293 section 3.1).
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
	flagURG
	flagECE
	flagCWR
)

// A segment is one packet of a connection made by hand; its zero value is an acknowledgement.
type segment struct {
	at       int // of the data: bytes after the first of the connection; may be negative
	data     []byte
	flags    uint8 // 0 is ACK
	noACK    bool  // leave the ACK flag out
	ttl      int   // 0 is the kernel's
	ack      int   // added to the acknowledgement number
	oldStamp bool  // a timestamp from long ago
	md5      bool  // the MD5 signature option, which a server without a key drops (RFC 2385)
	badSum   bool  // a wrong checksum
	badSize  bool  // a header that says it is shorter than any
	urgent   uint16
	options  []byte    // further TCP options, in multiples of four bytes
	wrap     *envelope // what is around it; nil is nothing unusual
}

// rawHow says how a connection is made by hand. Its zero value is the plainest handshake.
type rawHow struct {
	stamps  bool   // with timestamps
	early   []byte // data that the SYN carries
	options []byte // further TCP options of the SYN, in multiples of four bytes
	second  int    // a second SYN comes behind the first, which counts from so many bytes further on; 0 is none
}

// A rawTCP is a TCP connection made by hand: no kernel has a say in what it sends.
type rawTCP struct {
	src, dst netip.AddrPort
	node     *Node
	pc       *net.IPConn
	how      rawHow

	mu     sync.Mutex
	first  uint32 // sequence number of the first byte of data
	sent   int    // bytes of data that the peer may have, for acknowledgements
	next   uint32 // the peer's next sequence number
	acked  uint32 // the last that the peer has acknowledged
	stamp  uint32 // the peer's last timestamp
	open   bool   // the SYN-ACK has come
	reset  bool   // a RST has come
	got    []byte
	change chan struct{} // holds one token after every change
}

var nextRawPort atomic.Uint32

// dialRaw shakes hands by hand. The caller closes the connection; nothing tells the server of it.
func (t *Try) dialRaw(ctx context.Context, to netip.AddrPort, how rawHow) (*rawTCP, error) {
	port := uint16(rawPorts + nextRawPort.Add(1)%5000)
	src := t.Node.Addrs[0]
	if to.Addr().Is6() {
		src = t.Node.Addrs[1]
	}
	c := &rawTCP{src: netip.AddrPortFrom(src, port), dst: to, node: t.Node, how: how, change: make(chan struct{}, 1)}
	t.mu.Lock()
	t.sources = append(t.sources, c.src)
	t.mu.Unlock()
	network := "ip4:tcp"
	if src.Is6() {
		network = "ip6:tcp"
	}
	err := t.Node.Do(func() error {
		lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			var markErr error
			err := raw.Control(func(fd uintptr) { markErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, rawMark) })
			return errors.Join(err, markErr)
		}}
		pc, err := lc.ListenPacket(ctx, network, src.String())
		if err == nil {
			c.pc = pc.(*net.IPConn)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a raw socket: %w", err)
	}
	go c.listen()
	if err := c.handshake(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close resets the server, so that it keeps nothing, and stops listening.
func (c *rawTCP) Close() {
	c.mu.Lock()
	at := int(int32(c.acked - c.first)) // what it expects next
	c.mu.Unlock()
	_ = c.send(segment{at: at, flags: flagRST})
	_ = c.pc.Close()
}

// handshake sends a SYN, again if need be, from a sequence number of its own.
func (c *rawTCP) handshake(ctx context.Context) error {
	var isn [4]byte
	_, _ = rand.Read(isn[:]) // never fails
	c.mu.Lock()
	c.first, c.sent, c.next, c.open, c.reset, c.got = binary.BigEndian.Uint32(isn[:])+1, 0, 0, false, false, nil
	c.mu.Unlock()
	for range 4 {
		if err := c.send(segment{at: -1, data: c.how.early, flags: flagSYN, noACK: true, options: c.how.options}); err != nil {
			return err
		}
		if c.how.second != 0 {
			if err := c.send(segment{at: c.how.second - 1, flags: flagSYN, noACK: true}); err != nil {
				return err
			}
		}
		wait, cancel := context.WithTimeout(ctx, silence/3)
		err := c.until(wait, func() bool { return c.open })
		cancel()
		if err == nil {
			return c.send(segment{})
		} else if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return errors.New("no answer to the SYN")
}

// until waits for something to become true of the connection, or for a reset.
func (c *rawTCP) until(ctx context.Context, done func() bool) error {
	for {
		c.mu.Lock()
		ok, reset := done(), c.reset
		c.mu.Unlock()
		switch {
		case ok:
			return nil
		case reset:
			return syscall.ECONNRESET
		}
		select {
		case <-c.change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// answer waits for the server's first bytes.
func (c *rawTCP) answer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*silence)
	defer cancel()
	return c.until(ctx, func() bool { return len(c.got) > 0 })
}

// listen reads what comes for the connection and acknowledges it.
func (c *rawTCP) listen() {
	for buf := make([]byte, 65535); ; {
		n, from, err := c.pc.ReadFromIP(buf)
		if err != nil {
			return
		}
		peer, _ := netip.AddrFromSlice(from.IP)
		if peer.Unmap() == c.dst.Addr() && c.take(buf[:n]) {
			_ = c.send(segment{})
		}
		select {
		case c.change <- struct{}{}:
		default:
		}
	}
}

// take reads one TCP segment and reports whether it has to be acknowledged.
func (c *rawTCP) take(b []byte) bool {
	const header = 20
	if len(b) < header || binary.BigEndian.Uint16(b) != c.dst.Port() || binary.BigEndian.Uint16(b[2:]) != c.src.Port() {
		return false
	}
	offset := int(b[12]>>4) * 4
	if offset < header || offset > len(b) {
		return false
	}
	seq, flags, data := binary.BigEndian.Uint32(b[4:]), b[13], b[offset:]
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readStamp(b[header:offset])
	if flags&flagACK != 0 {
		c.acked = binary.BigEndian.Uint32(b[8:])
	}
	switch {
	case flags&flagRST != 0:
		c.reset = true
	case flags&flagSYN != 0:
		c.next, c.open = seq+1, true
	case c.open && seq == c.next && len(data) > 0:
		c.next += uint32(len(data))
		c.got = append(c.got, data...)
		return true
	}
	return false
}

// Options of a TCP header (RFC 9293 section 3.2, RFC 7323 section 3.2, RFC 2385 section 3).
const (
	optNop   = 1
	optMSS   = 2
	optStamp = 8
	optMD5   = 19
	optAO    = 29
	optMPTCP = 30
	optTFO   = 34
)

func (c *rawTCP) readStamp(options []byte) {
	for len(options) > 1 {
		switch kind, n := options[0], int(options[1]); {
		case kind == optNop:
			options = options[1:]
		case n < 2 || n > len(options):
			return
		case kind == optStamp && n == 10:
			c.stamp = binary.BigEndian.Uint32(options[2:])
			return
		default:
			options = options[n:]
		}
	}
}

// send sends one segment.
func (c *rawTCP) send(s segment) error {
	c.mu.Lock()
	b := c.build(s)
	if s.flags&flagSYN == 0 && s.ttl == 0 {
		c.sent = max(c.sent, s.at+len(s.data))
	}
	c.mu.Unlock()
	if s.wrap != nil {
		const life = 64
		ttl := uint8(life)
		if s.ttl != 0 {
			ttl = uint8(s.ttl)
		}
		return c.node.sendIP(s.wrap.ipPackets(c.src.Addr(), c.dst.Addr(), unix.IPPROTO_TCP, ttl, c.first+uint32(s.at), b)...)
	}
	to := &net.IPAddr{IP: c.dst.Addr().AsSlice()}
	var err error
	switch {
	case s.ttl == 0:
		_, err = c.pc.WriteToIP(b, to)
	case c.dst.Addr().Is4():
		p := ipv4.NewPacketConn(c.pc)
		if err = p.SetTTL(s.ttl); err == nil {
			_, err = p.WriteTo(b, nil, to)
		}
		err = errors.Join(err, p.SetTTL(64))
	default:
		_, err = ipv6.NewPacketConn(c.pc).WriteTo(b, &ipv6.ControlMessage{HopLimit: s.ttl}, to)
	}
	return err
}

// build makes the bytes of a segment. A segment without data stands at the end of what was sent.
func (c *rawTCP) build(s segment) []byte {
	at := s.at
	if len(s.data) == 0 && s.at == 0 && s.flags&flagRST == 0 {
		at = c.sent
	}
	flags := s.flags
	if !s.noACK {
		flags |= flagACK
	}
	b := make([]byte, 20, 60+len(s.data))
	binary.BigEndian.PutUint16(b, c.src.Port())
	binary.BigEndian.PutUint16(b[2:], c.dst.Port())
	binary.BigEndian.PutUint32(b[4:], c.first+uint32(at))
	if !s.noACK {
		binary.BigEndian.PutUint32(b[8:], c.next+uint32(s.ack))
	}
	const window = 64000
	b[13] = flags
	binary.BigEndian.PutUint16(b[14:], window)
	binary.BigEndian.PutUint16(b[18:], s.urgent)
	if flags&flagSYN != 0 {
		b = append(b, optMSS, 4, 1400>>8, 1400&0xff)
	}
	if c.how.stamps {
		now := uint32(time.Now().UnixMilli())
		if s.oldStamp {
			now -= 1 << 28 // three days: PAWS drops it (RFC 7323 section 5.3)
		}
		b = append(b, optNop, optNop, optStamp, 10)
		b = binary.BigEndian.AppendUint32(b, now)
		b = binary.BigEndian.AppendUint32(b, c.stamp)
	}
	if s.md5 {
		b = append(b, optNop, optNop, optMD5, 18)
		b = append(b, make([]byte, 16)...)
	}
	b = append(b, s.options...)
	b[12] = byte(len(b)/4) << 4
	if s.badSize {
		b[12] = 0x40
	}
	b = append(b, s.data...)
	sum := c.checksum(b)
	if s.badSum {
		sum ^= 0x5555
	}
	binary.BigEndian.PutUint16(b[16:], sum)
	return b
}

// checksum covers the segment and the addresses (RFC 9293 section 3.1).
func (c *rawTCP) checksum(b []byte) uint16 {
	pseudo := append(c.src.Addr().AsSlice(), c.dst.Addr().AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(b)))
	pseudo = append(pseudo, 0, 0, 0, unix.IPPROTO_TCP)
	return onesComplement(append(pseudo, b...))
}

// onesComplement is the internet checksum (RFC 1071).
func onesComplement(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
