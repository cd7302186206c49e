package kernel

import "tidegate.io/tidegate/egress"

const (
	heldRate  = 20000 // queued packets a second and client, in both directions: some thousand connections
	heldBurst = 5000  // less than a queue's length, so that one client cannot fill it
)

const (
	// maxExpected bounds the SYNs that the process need not see, of all clients together: what
	// is beyond has to be shown to it.
	maxExpected = 65536

	// expectedTimeout is how long the process need not see SYNs that are alike. What it thinks
	// of them can change with each DNS answer; it judges each connection's hello all the same.
	expectedTimeout = "30s"
)

// held plans what becomes of the packets of a connection without a verdict.
func (pl *planner) held() {
	pl.hold()
	if !pl.settings.Features.InnerHeader {
		pl.chain("held", pl.judged()...)
		return
	}
	pl.chain("judged", pl.judged()...)
	pl.chain("held",
		Rule{match{field: innerByte, op: ">=", value: 0}, goTo("judged")},
		// A bare acknowledgement has no bytes to judge, and the next segment with
		// some confirms the same again. A third of a connection's packets before
		// its verdict are such.
		Rule{match{tcpFlags, allFlags, "==", flagACK}, accept},
		Rule{goTo("judged")})
}

// hold plans where a new connection to a port of HTTPS rules is marked. The process sees its
// SYN, unless it has lately let a SYN of the same client to the same address and port pass.
// Then the mark says where the client's bytes begin, by which the process knows the right
// answer to the SYN, and sees that. What conntrack has an entry of is no new connection: the
// server may have one, too, that counts from elsewhere.
func (pl *planner) hold() {
	var rules []Rule
	if pl.settings.Features.InnerHeader { // or a SYN with data could not be told
		const form = allFlags &^ (flagECE | flagCWR)
		rules = append(rules,
			Rule{match{tcpFlags, form, "==", flagSYN}, match{metaMark, uint32(again), "==", 0}, expected{0}, open{}, accept},
			Rule{match{tcpFlags, form, "==", flagSYN}, match{metaMark, uint32(again), "==", 0}, expected{1}, open{}, accept})
	}
	pl.chain("hold", append(rules, Rule{setMark{NewMark(Held, 0)}, accept})...)
}

// judged are the rules for those packets that the process has to see.
func (pl *planner) judged() []Rule {
	s := pl.settings
	odd := goTo(pl.deny(egress.InvalidPacket, drop))
	syn := match{tcpFlags, flagSYN, "!=", 0}
	rules := []Rule{
		{hasOption{optionMD5}, odd}, // decoys that a server without the key drops
		{hasOption{optionAO}, odd},
	}
	if s.Features.InnerHeader {
		rules = append(rules, Rule{syn, match{field: innerByte, op: ">=", value: 0}, odd}) // data that no one has judged
	}
	if s.Features.StripOption {
		rules = append(rules, // the same connection over a path that is not seen; data in the SYN
			Rule{syn, stripOption{optionMPTCP}},
			Rule{syn, stripOption{optionFastOpen}})
	} else {
		rules = append(rules, Rule{syn, hasOption{optionMPTCP}, odd})
	}
	if s.Features.InnerHeader {
		rules = append(rules,
			Rule{ctIs(Opening), bareSYN("=="), accept},
			// An answer to a SYN that its sender gives is none, and would turn the ends around.
			Rule{ctIs(Opening), original, match{tcpFlags, flagSYN | flagACK, "==", flagSYN | flagACK}, odd})
	}
	flood := goTo(pl.deny(egress.TooManyPending, drop))
	rules = append(rules, each(func(name string, src, _ field) Rule {
		return Rule{original, limit{src, "held." + name, true, heldRate, heldBurst}, flood}
	})...)
	rules = append(rules, each(func(name string, _, dst field) Rule {
		return Rule{reply, limit{dst, "held." + name, true, heldRate, heldBurst}, flood}
	})...)
	if s.Features.InnerHeader {
		rules = append(rules, Rule{ctIs(Opening), takeMark{}, pl.queue(s.Queue, s.Queues, false)})
	}
	return append(rules, Rule{setPacketMark{NewMark(Held, 0)}, pl.queue(s.Queue, s.Queues, false)})
}
