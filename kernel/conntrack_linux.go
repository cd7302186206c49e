package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/egress"
)

// Tracker sees the connections that carry a mark, and cuts them.
type Tracker struct {
	events *socket
	ask    *socket
	look   *socket
	lost   atomic.Uint64
}

// endings is how ends of connections are read: they are for the record, and may wait.
var endings = reading{count: 64, size: 4 << 10, rest: 10 * time.Millisecond}

// trackerBuffer holds the ends of some ten thousand connections that go at once.
const trackerBuffer = 16 << 20

// OpenTracker watches conntrack in the network namespace of the calling thread.
// Ends of connections are kept from now on until Run reads them.
func OpenTracker() (*Tracker, error) {
	events, err := openSocket(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("conntrack: %w", err)
	}
	events.receiveBuffer(trackerBuffer)
	err = events.control(func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_CONNTRACK_DESTROY)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("conntrack: follow: %w", err), events.close())
	}
	ask, err := openSocket(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("conntrack: %w", err), events.close())
	}
	ask.receiveBuffer(trackerBuffer)
	look, err := openSocket(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("conntrack: %w", err), events.close(), ask.close())
	}
	return &Tracker{events: events, ask: ask, look: look}, nil
}

// Close ends the watch.
func (t *Tracker) Close() error {
	return errors.Join(t.events.close(), t.ask.close(), t.look.close())
}

// Lost is how many times the kernel reported that ends of connections were lost
// because Run was too slow. It may be called from any goroutine.
func (t *Tracker) Lost() uint64 { return t.lost.Load() }

// Run calls ended for every marked connection that ends, until ctx is done, and
// then returns nil.
func (t *Tracker) Run(ctx context.Context, ended func(Flow)) error {
	err := t.events.follow(ctx, endings, &t.lost, func(h unix.NlMsghdr, body []byte) {
		if h.Type != typeConntrackDelete || len(body) < nfgenLen {
			return
		}
		if f, ok := readFlow(body[nfgenLen:]); ok && f.Mark.State() != Undecided {
			ended(f)
		}
	})
	if err != nil {
		return fmt.Errorf("conntrack: %w", err)
	}
	return nil
}

// Each calls visit for every marked connection that lives now, in any order, while the kernel
// lists them: there may be a million, and nothing is kept of one. Each and Cut may be called
// while Run runs, but not at the same time as each other.
func (t *Tracker) Each(visit func(Flow)) error {
	// One list of both families: the kernel looks at all of its table for each.
	req := message(nil, typeConntrackGet, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, unix.AF_UNSPEC, 0, nil)
	err := t.ask.dump(req, func(_ uint16, body []byte) error {
		if len(body) < nfgenLen {
			return nil
		}
		if f, ok := readFlow(body[nfgenLen:]); ok && f.Mark.State() != Undecided {
			visit(f)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("conntrack: list: %w", err)
	}
	return nil
}

// Cut marks connections so that each end is reset at its next packet; the mark
// keeps its rule number. A connection that has ended is passed over. One that the
// kernel refuses to mark does not keep the others alive; the error is the first.
func (t *Tracker) Cut(flows ...Flow) (first error) {
	for _, f := range flows {
		err := t.ask.request(cutMessage(f))
		if err != nil && !errors.Is(err, unix.ENOENT) && first == nil {
			first = fmt.Errorf("conntrack: cut %s > %s: %w", f.Src, f.Dst, err)
		}
	}
	return first
}

// Renumber gives a connection's mark another rule number. Its state stays what it is by
// then: a SYN may have made it another connection's. One that has ended is passed over.
func (t *Tracker) Renumber(f Flow, rule uint32) error {
	err := t.ask.request(markMessage(f, NewMark(0, rule), MaxRule))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("conntrack: renumber %s > %s: %w", f.Src, f.Dst, err)
	}
	return nil
}

// Knows reports whether conntrack has a connection from f's source to its destination.
// One goroutine at a time may call it, while others call the other methods.
func (t *Tracker) Knows(f Flow) (bool, error) {
	b := messageHeader(nil, typeConntrackGet, unix.NLM_F_REQUEST|unix.NLM_F_ACK, familyOf(f), 0)
	b = appendTuple(b, f)
	finish(b, 0)
	switch err := t.look.request(b); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ENOENT):
		return false, nil
	default:
		return false, fmt.Errorf("conntrack: look for %s > %s: %w", f.Src, f.Dst, err)
	}
}

func familyOf(f Flow) uint8 {
	if f.Src.Addr().Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func cutMessage(f Flow) []byte { return markMessage(f, NewMark(Cut, f.Mark.Rule()), ^uint32(0)) }

// markMessage changes the bits of a connection's mark that are in mask.
func markMessage(f Flow, mark Mark, mask uint32) []byte {
	b := messageHeader(nil, typeConntrackNew, unix.NLM_F_REQUEST|unix.NLM_F_ACK, familyOf(f), 0)
	b = appendTuple(b, f)
	b = attr32(b, ctaMark, uint32(mark))
	b = attr32(b, ctaMarkMask, mask)
	b = attr32(b, ctaID, f.ID) // so that a later connection on the same ports is left alone
	finish(b, 0)
	return b
}

func appendTuple(b []byte, f Flow) []byte {
	src, dst := uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
	if f.Src.Addr().Is6() {
		src, dst = ctaIPv6Src, ctaIPv6Dst
	}
	tuple := len(b)
	b = nest(b, ctaTupleOrig)
	ip := len(b)
	b = nest(b, ctaTupleIP)
	b = attr(b, src, f.Src.Addr().AsSlice())
	b = attr(b, dst, f.Dst.Addr().AsSlice())
	unnest(b, ip)
	proto := len(b)
	b = nest(b, ctaTupleProto)
	b = attr(b, ctaProtoNum, []byte{ipProto(f.Proto)})
	b = attr(b, ctaProtoSrcPort, binary.BigEndian.AppendUint16(nil, f.Src.Port()))
	b = attr(b, ctaProtoDstPort, binary.BigEndian.AppendUint16(nil, f.Dst.Port()))
	unnest(b, proto)
	unnest(b, tuple)
	return b
}

// readFlow reads an entry of TCP or UDP.
func readFlow(attrs []byte) (f Flow, ok bool) {
	for typ, v := range attributes(attrs) {
		switch typ {
		case ctaTupleOrig:
			ok = readTuple(&f, v)
		case ctaMark:
			f.Mark = Mark(number(v))
		case ctaID:
			f.ID = uint32(number(v))
		case ctaCountersOrig:
			f.Sent = nested(v, ctaCountersBytes)
		case ctaCountersReply:
			f.Received = nested(v, ctaCountersBytes)
		case ctaTimestamp:
			f.Start, f.End = moment(nested(v, ctaTimestampStart)), moment(nested(v, ctaTimestampStop))
		}
	}
	return f, ok
}

func readTuple(f *Flow, b []byte) bool {
	var src, dst netip.Addr
	var num uint8
	var sport, dport uint16
	for typ, v := range attributes(b) {
		for inner, w := range attributes(v) {
			switch {
			case typ == ctaTupleIP && (inner == ctaIPv4Src || inner == ctaIPv6Src):
				src, _ = netip.AddrFromSlice(w)
			case typ == ctaTupleIP && (inner == ctaIPv4Dst || inner == ctaIPv6Dst):
				dst, _ = netip.AddrFromSlice(w)
			case typ == ctaTupleProto && inner == ctaProtoNum:
				num = uint8(number(w))
			case typ == ctaTupleProto && inner == ctaProtoSrcPort:
				sport = uint16(number(w))
			case typ == ctaTupleProto && inner == ctaProtoDstPort:
				dport = uint16(number(w))
			}
		}
	}
	f.Src, f.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	switch num {
	case unix.IPPROTO_TCP:
		f.Proto = egress.TCP
	case unix.IPPROTO_UDP:
		f.Proto = egress.UDP
	default:
		return false
	}
	return src.IsValid() && dst.IsValid()
}

func ipProto(p egress.Proto) uint8 {
	if p == egress.UDP {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// number reads a big-endian integer of any size.
func number(b []byte) (n uint64) {
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n
}

func nested(b []byte, want uint16) uint64 {
	for typ, v := range attributes(b) {
		if typ == want {
			return number(v)
		}
	}
	return 0
}

func moment(ns uint64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(ns))
}
