package gateway

import (
	"net/netip"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// Config is what a [Follower] asks and tells. Functions are called on the goroutine that
// called the Follower, and must not call it back. Policy, Bindings, Verdict, Reset, Decided,
// Allowed and Passed must be there.
type Config struct {
	// Policy returns the policy in force; it may return another one at each call.
	Policy func() *egress.Policy

	// Bindings is shared with whoever learns from DNS.
	Bindings *Bindings

	// API reports whether addr is a current address of the cluster's API server. Nil is never.
	API func(cluster string, addr netip.Addr) bool

	// Observe reports whether a cluster is only observed: nothing of it is held or
	// refused, and what would have been is logged. Nil is never.
	Observe func(cluster string) bool

	// Lookup starts to ask DNS for a name, whose answer [Follower.Resolved] must be given.
	// It is used for clusters whose own DNS does not pass the gateway, must not block, and
	// gets a name once for all connections that wait for it. Nil denies instead.
	Lookup func(name egress.Name)

	// Verdict answers for a packet, once for each that came. Not accepted, the packet
	// vanishes. Accepted, it goes on, and its connection gets the mark if that is not 0;
	// with the mark Cut the packet's sender is reset instead.
	Verdict func(id uint32, accept bool, mark uint32)

	// Reset sends an IP packet that is valid during the call.
	Reset func(packet []byte)

	// Decided is told each connection once, when nothing about it is open any more.
	Decided func(egress.Flow)

	// Allowed and Passed give the mark of a connection that need not be seen again: one
	// that the rule permits, and one that is only observed (nil is "would be denied").
	Allowed, Passed func(rule *egress.Rule) uint32

	// Cut is the mark of a connection that is over.
	Cut uint32
}

// Times. Each is the time of something that a client or a server is waited for.
const (
	// releaseAfter is how long the first bytes are held before the server gets what is
	// there of an incomplete hello: after a retransmission time-out a sender's window is
	// one segment, and without an acknowledgement it sends no more.
	releaseAfter = 50 * time.Millisecond

	// helloWithin is how long a hello may take from its first byte to its last, the
	// look-up of its name included.
	helloWithin = 5 * time.Second

	// quietFor is how long a SYN may stay without its answer, and an open connection
	// without its first byte.
	quietFor = 10 * time.Second

	// idleFor is how long an allowed connection may wait for its confirmation without any
	// packet: longer than a sender's retransmissions go on by default.
	idleFor = 3 * time.Minute
)

// Follower follows the undecided connections of one queue. All its methods belong to one
// goroutine.
type Follower struct {
	Config

	now     time.Time
	conns   map[key]*conn
	recent  recent
	sources sources
	buffers buffers
	spare   []*conn // for use again
	lookups map[egress.Name][]key
	out     []byte // the reset being built

	syns, hellos, idle, releases deadlines
}

// key is the two ends of a connection.
type key struct{ client, server netip.AddrPort }

// New returns a Follower without connections.
func New(c Config) *Follower {
	f := &Follower{Config: c, conns: map[key]*conn{}, lookups: map[egress.Name][]key{}}
	f.recent.init()
	f.sources.by = map[netip.Addr]*source{}
	f.syns.init(quietFor)
	f.hellos.init(helloWithin)
	f.idle.init(idleFor)
	f.releases.init(releaseAfter)
	return f
}

// Packet takes a packet from the queue. ip begins with the IP header, is not kept, and may
// hold an offload unit of up to 64 KiB. Its verdict may come during this call or a later one.
func (f *Follower) Packet(now time.Time, id uint32, ip []byte) {
	f.now = now
	p, err := wire.ReadPacket(ip)
	switch {
	case err != nil:
		f.unreadable(id, &p, err)
	case p.Proto == wire.UDP:
		f.datagram(id, &p)
	default:
		f.segment(id, &p)
	}
}

func (f *Follower) segment(id uint32, p *wire.Packet) {
	if c := f.conns[key{p.Src, p.Dst}]; c != nil {
		if !f.overtaken(c, id) {
			f.fromClient(c, id, p)
		}
	} else if c := f.conns[key{p.Dst, p.Src}]; c != nil {
		if !f.overtaken(c, id) {
			f.fromServer(c, id, p)
		}
	} else if p.Flags.Has(wire.SYN) && !p.Flags.Has(wire.ACK) {
		f.open(id, p)
	} else {
		f.stranger(id, p)
	}
}

// Tick does what is due; call it every 10 ms or so.
func (f *Follower) Tick(now time.Time) {
	f.now = now
	for t := f.releases.due(now); t != nil; t = f.releases.due(now) {
		t.leave()
		f.flow(t.conn)
	}
	for _, d := range []*deadlines{&f.syns, &f.hellos, &f.idle} {
		for t := d.due(now); t != nil; t = d.due(now) {
			f.expire(t.conn)
		}
	}
}

// expire ends what was waited for too long.
func (f *Follower) expire(c *conn) {
	switch c.state {
	case opening:
		// The answer never came, and there is nobody to be told.
		f.log(c, egress.Denied(egress.UpstreamUnreachable))
		f.free(c)
	case reading:
		f.deny(c, egress.HelloTimeout)
	case asking:
		f.deny(c, egress.AnswerLacksAddress)
	case confirming:
		f.deny(c, egress.UpstreamUnreachable)
	}
}

// Stats says how much a Follower keeps at the moment.
type Stats struct {
	Connections int // followed
	Held        int // packets that wait in the queue
	Bytes       int // of buffers for first bytes
	Sources     int // clients that have any
}

// Stats may be called by the goroutine that the Follower belongs to.
func (f *Follower) Stats() Stats {
	return Stats{len(f.conns), f.sources.held, f.sources.bytes, len(f.sources.by)}
}
