package kernel

import (
	"net/netip"
	"testing"
)

// TestSYNsThatTheProcessNeedNotSee: one passes the queue by when the process has expected it and
// nothing about it is odd, and leaves where its client's bytes begin.
func TestSYNsThatTheProcessNeedNotSee(t *testing.T) {
	m := newMachine(t, goldenPlans(t)["ordinary"], nil)
	const sequence = 0xfedcba98
	opening := uint32(NewMark(Opening, sequence&MaxRule))
	for _, row := range []struct {
		what   string
		change func(p *probe)
		fate   fate
		mark   uint32
	}{
		{"expected", func(*probe) {}, passes, opening},
		{"expected, with ECN", func(p *probe) { p.flags |= flagECE | flagCWR }, passes, opening},
		{"not expected", func(p *probe) { p.expected = false }, queued, uint32(NewMark(Held, 0))},
		{"on the ports of another connection", func(p *probe) { p.mark = uint32(NewMark(Allowed, 1)) }, queued, uint32(NewMark(Held, 0))},
		{"sent again", func(p *probe) { p.mark = opening }, queued, uint32(NewMark(Held, 0))},
		{"with another number than the first", func(p *probe) { p.mark = uint32(NewMark(Opening, 1)) }, queued, uint32(NewMark(Held, 0))},
		{"to another port", func(p *probe) { p.port = 9999 }, dropped, 0},
		{"with data", func(p *probe) { p.data = []byte("x") }, dropped, opening},
		{"with a signature", func(p *probe) { p.options = []uint8{optionMD5} }, dropped, opening},
		{"with the urgent flag", func(p *probe) { p.flags |= 32 }, queued, uint32(NewMark(Held, 0))},
		{"from a source that is spoofed", func(p *probe) { p.elsewhere = true }, dropped, 0},
		{"in fragments", func(p *probe) { p.fragment = true }, dropped, 0},
	} {
		for _, ends := range [][2]string{{"10.224.0.4", "20.1.2.3"}, {"fd00:224::4", "2603:1020::3"}} {
			p := &probe{src: netip.MustParseAddr(ends[0]), dst: netip.MustParseAddr(ends[1]), proto: protoTCP, port: 443, flags: flagSYN, seq: sequence, expected: true}
			row.change(p)
			if got := m.run(p); got != row.fate || p.mark != row.mark {
				t.Errorf("%s, to %s: it is %s with the mark %s, want %s with %s", row.what, p.dst, got, Mark(p.mark), row.fate, Mark(row.mark))
			}
		}
	}
}

// TestWhatComesBeforeTheAnswerIsSeen: of a connection whose SYN has passed unseen, the process sees
// everything but bare acknowledgements, with the connection's mark.
func TestWhatComesBeforeTheAnswerIsSeen(t *testing.T) {
	m := newMachine(t, goldenPlans(t)["ordinary"], nil)
	opening := uint32(NewMark(Opening, 77))
	for _, row := range []struct {
		what  string
		flags uint32
		data  string
		fate  fate
	}{
		{"a hello", flagACK, "hello", queued},
		{"a reset", flagRST, "", queued},
		{"a FIN", flagFIN | flagACK, "", queued},
		{"a bare acknowledgement", flagACK, "", passes},
		{"an answer to a SYN, by who has sent it", flagSYN | flagACK, "", dropped},
	} {
		p := &probe{src: netip.MustParseAddr("10.224.0.4"), dst: netip.MustParseAddr("20.1.2.3"), proto: protoTCP, port: 443, flags: row.flags, data: []byte(row.data), mark: opening}
		got := m.run(p)
		if got != row.fate || got == queued && p.meta != opening {
			t.Errorf("%s: it is %s with the mark %s", row.what, got, Mark(p.meta))
		}
	}
}

// TestReturnsOfTheQueue: what the process says of a packet becomes of its connection.
func TestReturnsOfTheQueue(t *testing.T) {
	m := newMachine(t, goldenPlans(t)["ordinary"], nil)
	held, opening := uint32(NewMark(Held, 0)), uint32(NewMark(Opening, 77))
	for _, row := range []struct {
		what        string
		flags       uint32
		mark, meta  uint32
		want        uint32
		expect, cut bool
	}{
		{what: "a SYN that is expected from now on", flags: flagSYN, mark: held, meta: uint32(Expected), want: uint32(Expected), expect: true},
		{what: "a SYN that is not", flags: flagSYN, mark: held, meta: held, want: held},
		{what: "the answer to a SYN that was not seen", flags: flagSYN | flagACK, mark: opening, meta: held, want: held},
		{what: "an answer that was not the right one", flags: flagSYN | flagACK, mark: opening, meta: opening, want: opening},
		{what: "data of a connection that has been allowed meanwhile", flags: flagACK, mark: uint32(NewMark(Allowed, 3)), meta: held, want: uint32(NewMark(Allowed, 3))},
		{what: "a late packet from before the answer", flags: flagRST, mark: held, meta: opening, want: held},
		{what: "a packet of a connection that is over", flags: flagACK, mark: uint32(NewMark(Cut, 0)), meta: opening, want: uint32(NewMark(Cut, 0)), cut: true},
	} {
		p := &probe{src: netip.MustParseAddr("10.224.0.4"), dst: netip.MustParseAddr("20.1.2.3"), proto: protoTCP, port: 443, flags: row.flags, mark: row.mark, meta: row.meta}
		v := m.chain(m.chains["verdict"], p, 0)
		if p.mark != row.want || p.expected != row.expect || (v == drop) != row.cut {
			t.Errorf("%s: %q with the mark %s, expected %t", row.what, v, Mark(p.mark), p.expected)
		}
	}
}
