package kernel

import (
	"fmt"
	"slices"

	"tidegate.io/tidegate/egress"
)

// Priorities of the hooks, among the kernel's own: defragmentation is at -400,
// conntrack at -200, destination NAT at -100, source NAT at 100.
const (
	beforeDefrag    = -450
	beforeRouting   = -150
	destinationNAT  = -100
	filterPackets   = 0
	afterTheQueue   = 10
	sourceNAT       = 100
	ntpPort         = 123
	ntpRate         = 10 // datagrams a second and source; a client sends one in a minute
	ntpBurst        = 40
	ntpSize         = 8 + 48 // RFC 5905 section 7.3: the header without extensions or MAC, behind UDP's
	ntpModeMask     = 7
	ntpModeClient   = 3
	freshRate       = 5000  // new connections a second and client: with their timeouts less than conntrack's usual room
	freshBurst      = 20000 // as when all pods of a node start
	logRate         = 100   // reports a second and source, which may be a node with many pods
	logBurst        = 500
	cutRate         = 1000 // reports of cut connections a second and source: one is enough for each
	cutBurst        = 16384
	maxSources      = 65536 // a source beyond them is counted, and not logged
	sourceTimeout   = "1m"
	fragmentBits    = 0x3fff // more fragments, or an offset: RFC 791 section 3.1
	plainHeaderSize = 5      // words of an IPv4 header without options
)

// hooks plans the chains that the kernel enters by itself.
func (pl *planner) hooks(clusters []client) {
	pl.normalise()
	pl.classify()
	pl.divert()
	pl.input()
	pl.forward()
	pl.base("verdict", "filter", "forward", afterTheQueue, false,
		// Only packets that the queue gave back carry a mark here. A packet
		// that was merely passed on must not change what its connection has
		// become meanwhile; a SYN must, for the verdict on the connection
		// before it may have been given after it was queued.
		Rule{match{metaMark, uint32(^seen), "==", 0}, accept},
		Rule{ctIs(Cut), bareSYN("!="), setPacketMark{}, goTo("cut")}, // cut while the packet waited: no verdict revives it
		Rule{packetIs(Held), bareSYN("!="), setPacketMark{}, accept},
		Rule{packetIs(Watched), bareSYN("!="), setPacketMark{}, accept},
		Rule{copyMark{}},
		// The process has told the other end, and need not hear of it. A packet that is
		// neither dropped nor answered here would go on.
		Rule{packetIs(Cut), proto(protoTCP), withReset},
		Rule{packetIs(Cut), withProhibited},
		Rule{setPacketMark{}},
	)
	if pl.settings.Masquerade {
		pl.base("leave", "nat", "postrouting", sourceNAT, false,
			Rule{match{field: ctMark, op: "!=", value: 0}, masquerade{}})
	}
}

// The shortcuts are rules that could be left out: they let an ordinary packet of a
// connection pass in a few loads, or lead it to the queue, before rules that say the same at length.
// Fields of a protocol are compared in packets of any: of another they hold something
// else, and it takes the long way, or what the rules behind do with it is to accept it.
var shortcuts = struct{ normalise, classify, forward []Rule }{
	normalise: []Rule{
		{match{field: anyStart, op: "==", value: plainV4}, match{anyFragment, fragmentBits, "==", 0}, accept},
		{match{field: v6Next, op: "==", value: protoTCP}, accept}, // no headers in between
		{match{field: v6Next, op: "==", value: protoUDP}, accept},
		{match{field: v6Next, op: "==", value: protoICMPv6}, accept},
	},
	// Only a bare SYN changes what has been allowed.
	classify: []Rule{{ctIs(Allowed), match{anyFlags, openingFlags, "!=", flagSYN}, accept}},
	// A packet that conntrack does not vouch for has no such marks.
	forward: []Rule{
		{ctIs(Allowed), match{field: anyDport, op: "!=", value: ntpPort}, accept},
		{ctIs(Held), proto(protoTCP), goTo("held")}, // an error about it is no TCP
	},
}

// normalise drops what two receivers could read differently, before conntrack
// puts fragments together. Datagrams of UDP may come in fragments.
func (pl *planner) normalise() {
	odd := goTo(pl.deny(egress.InvalidPacket, drop))
	v4, v6 := in{v4Src, "enforced.v4"}, in{v6Src, "enforced.v6"}
	pl.base("normalise", "filter", "prerouting", beforeDefrag, false, slices.Concat(pl.asked(), shortcuts.normalise, []Rule{
		{v4, match{v4Fragment, fragmentBits, "!=", 0}, match{field: v4Protocol, op: "==", value: protoTCP}, odd},
		{v4, match{field: v4HeaderLength, op: ">", value: plainHeaderSize}, odd},
		{v6, match{field: v6FragmentProtocol, op: "==", value: protoTCP}, odd},
		{v6, hasHeader{headerHop}, odd},
		{v6, hasHeader{headerRouting}, odd},
		{v6, hasHeader{headerDestination}, odd},
	})...)
}

// classify decides what a connection is at its first packet, and leaves it in the
// connection's mark for the forward hook.
func (pl *planner) classify() {
	rules := slices.Concat([]Rule{{setPacketMark{seen}}}, // a mark from elsewhere would be taken for a verdict
		shortcuts.classify, []Rule{
			// The re-used-ports attack: a client makes the server close without
			// conntrack noticing, and opens another connection on the same ports.
			{bareSYN("=="), setMark{}},
			// Datagrams have no SYN: one of a flow that was cut is judged as the first of
			// a new one, or a client that keeps its port would never be permitted again.
			{proto(protoUDP), ctIs(Cut), original, setMark{}},
			{ctIs(Undecided), original, goTo("new")},
		})
	pl.base("classify", "filter", "prerouting", beforeRouting, false, rules...)
	pl.chain("new", append(pl.tooFresh(), each(func(name string, src, _ field) Rule { return Rule{goFrom{src, "new." + name}} })...)...)
}

// divert leads web requests and questions to the gateway's own servers. The kernel asks here
// once for each connection, and conntrack does the same with the rest of it. A connection that
// becomes Proxied later is not led anywhere, and is refused by the forward hook.
func (pl *planner) divert() {
	var rules []Rule
	if p := pl.settings.Transparent; p != 0 {
		rules = append(rules, Rule{ctIs(Proxied), proto(protoTCP), redirect{p}})
	}
	if pl.settings.DNS != 0 {
		rules = append(rules, each(func(name string, src, _ field) Rule { return Rule{goFrom{src, "dns." + name}} })...)
	}
	if len(rules) > 0 {
		pl.base("divert", "nat", "prerouting", destinationNAT, false, rules...)
	}
}

// tooFresh keeps one enforced client from filling conntrack: an entry of a connection that
// nobody answers stays for half a minute. What is refused here makes none. Only packets that
// would make one count: the flow of a resolver that asks our DNS server stays undecided.
func (pl *planner) tooFresh() []Rule {
	flood := goTo(pl.deny(egress.TooManyPending, drop))
	return each(func(name string, src, _ field) Rule {
		return Rule{unknown, in{src, "enforced." + name}, limit{src, "fresh." + name, true, freshRate, freshBurst}, flood}
	})
}

// input protects the gateway itself from its clients. Others are the machine's
// own affair, but for the ports that serve clients.
func (pl *planner) input() {
	rules := []Rule{{loopback{}, accept}}
	if p := pl.settings.Transparent; p != 0 {
		rules = append(rules, Rule{ctIs(Proxied), port(tcpDport, p), accept})
	}
	rules = append(rules,
		Rule{reply, accept},
		Rule{proto(protoICMP), accept},
		Rule{proto(protoICMPv6), accept},
	)
	rules = append(rules, fromSource("clients", goTo("serve"))...)
	rules = append(rules, Rule{linkLocal{}, goTo("serve")})
	var serve []Rule
	if p := pl.settings.Asked; p != 0 {
		serve = append(serve, Rule{port(udpDport, p), isUntracked, accept}) // under its own port nobody asks
		rules = append(rules, Rule{port(udpDport, p), drop})
	}
	for _, p := range []struct {
		field field
		port  uint16
	}{{udpDport, pl.settings.DNS}, {tcpDport, pl.settings.DNS}, {tcpDport, pl.settings.Explicit}, {tcpDport, pl.settings.Transparent}} {
		if p.port == 0 {
			continue
		}
		if p.port != pl.settings.Transparent { // which only what is diverted reaches
			serve = append(serve, Rule{port(p.field, p.port), accept})
		}
		rules = append(rules, Rule{port(p.field, p.port), drop}) // no resolver or proxy for the world
	}
	serve = append(serve,
		Rule{port(udpDport, 546), linkLocal{}, accept}, // the gateway's own DHCPv6
		Rule{proto(protoTCP), goTo(pl.deny(egress.NoRule, withReset))},
		Rule{goTo(pl.deny(egress.NoRule, withProhibited))},
	)
	if m := pl.settings.Management; m.IsValid() {
		serve = append([]Rule{{port(tcpDport, m.Port()), goTo(pl.deny(egress.NoRule, withReset))}}, serve...)
	}
	pl.base("input", "filter", "input", filterPackets, false, rules...)
	pl.chain("serve", serve...)
}

func (pl *planner) forward() {
	rules := append(slices.Clone(shortcuts.forward), []Rule{
		{invalid, goTo("undecided")},               // before any mark: conntrack does not vouch for it
		{related, reply, proto(protoICMP), accept}, // to the client: of a path with smaller packets, of a port where nobody is
		{related, reply, proto(protoICMPv6), accept},
		{ctIs(Allowed), port(udpDport, ntpPort), original, jumpTo("ntp")},
		{ctIs(Allowed), accept},
		// A client's error about a connection carries what the client likes to the
		// other end, so it passes where the connection may.
		{related, proto(protoICMP), goTo("undecided")},
		{related, proto(protoICMPv6), goTo("undecided")},
		// The process can list and cut these two. Others are asked about anew at
		// each packet, so that they end when their cluster is enforced.
		{ctIs(Passed), proto(protoTCP), accept},
		{ctIs(Passed), proto(protoUDP), accept},
		{ctIs(Held), goTo("held")},
	}...)
	// What was watched when its cluster was enforced has passed without a verdict.
	rules = append(rules, each(func(name string, src, _ field) Rule {
		return Rule{ctIs(Watched), in{src, "enforced." + name}, goTo("undecided")}
	})...)
	rules = append(rules, each(func(name string, _, dst field) Rule {
		return Rule{ctIs(Watched), in{dst, "enforced." + name}, goTo("undecided")}
	})...)
	rules = append(rules, []Rule{
		{ctIs(Watched), setPacketMark{NewMark(Watched, 0)}, pl.queue(pl.settings.Observe, 1, true)},
		{ctIs(Cut), goTo("cut")},
		{ctIs(Proxied), goTo(pl.deny(egress.NeedsRequest, withReset))},
		{goTo("undecided")},
	}...)
	pl.base("forward", "filter", "forward", filterPackets, true, rules...)
	var undecided []Rule
	undecided = append(undecided, each(func(name string, src, _ field) Rule { return Rule{goFrom{src, "out." + name}} })...)
	undecided = append(undecided, each(func(name string, _, dst field) Rule { return Rule{goFrom{dst, "in." + name}} })...)
	pl.chain("undecided", append(undecided, Rule{drop})...)
}

func (pl *planner) queue(first, n uint16, bypass bool) enqueue {
	return enqueue{first, max(n, 1), bypass, pl.settings.Features.NativeQueue}
}

// sharedChains plans the chains that are alike for all clusters.
func (pl *planner) sharedChains() {
	s := pl.settings
	pl.held()

	// The sender is reset here. The other end can be told by the process alone,
	// which learns from the packet where the sequence numbers stand.
	cut := each(func(name string, src, _ field) Rule {
		return Rule{proto(protoTCP), limit{src, "cut." + name, false, cutRate, cutBurst}, report{s.Log, egress.PolicyChanged.String()}}
	})
	pl.chain("cut", append(cut,
		Rule{proto(protoTCP), withReset},
		Rule{withProhibited})...)

	ntp := []Rule{
		{match{field: udpLength, op: "!=", value: ntpSize}, goTo(pl.deny(egress.NTPPayload, withProhibited))},
		{match{ntpMode, ntpModeMask, "!=", ntpModeClient}, goTo(pl.deny(egress.NTPPayload, withProhibited))},
	}
	ntp = append(ntp, each(func(name string, src, _ field) Rule {
		return Rule{limit{src, "ntp." + name, true, ntpRate, ntpBurst}, goTo(pl.deny(egress.NTPPayload, drop))}
	})...)
	pl.chain("ntp", ntp...)

	pl.chain("denied",
		Rule{invalid, goTo(pl.deny(egress.InvalidPacket, drop))},
		Rule{port(udpDport, 443), goTo(pl.deny(egress.QUIC, withUnreachable))},
		Rule{port(udpDport, 80), goTo(pl.deny(egress.QUIC, withUnreachable))},
		Rule{proto(protoTCP), goTo(pl.deny(egress.NoRule, withReset))},
		Rule{proto(protoUDP), goTo(pl.deny(egress.NoRule, withProhibited))},
		Rule{goTo(pl.deny(egress.ProtocolNotAllowed, withProhibited))})

	if pl.settings.DNS != 0 {
		pl.chain("dns",
			Rule{port(udpDport, 53), redirect{pl.settings.DNS}},
			Rule{port(tcpDport, 53), redirect{pl.settings.DNS}})
	}
}

// deny returns the chain that counts and reports a refusal and gives the answer.
func (pl *planner) deny(reason egress.Reason, answer Statement) string {
	name := fmt.Sprintf("deny.%s.%s", reason, answerNames[answer])
	pl.reporting(name, reason.String(), Rule{answer})
	return name
}

// answerNames tells apart the chains of one reason.
var answerNames = map[Statement]string{drop: "drop", withReset: "reset", withProhibited: "prohibited", withUnreachable: "unreachable"}

// observe returns the chain that counts and reports what would be refused.
func (pl *planner) observe(reason egress.Reason) string {
	name := "observed." + reason.String()
	pl.reporting(name, observedPrefix+reason.String())
	return name
}

func (pl *planner) reporting(chain, prefix string, last ...Rule) {
	for _, c := range pl.rs.Chains {
		if c.Name == chain {
			return
		}
	}
	pl.rs.Counters = append(pl.rs.Counters, prefix)
	rules := []Rule{{count{prefix}}}
	rules = append(rules, each(func(name string, src, _ field) Rule {
		return Rule{limit{src, "logged." + name, false, logRate, logBurst}, report{pl.settings.Log, prefix}}
	})...)
	pl.chain(chain, append(rules, last...)...)
}
