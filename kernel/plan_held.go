package kernel

import "tidegate.io/tidegate/egress"

const (
	heldRate  = 20000 // queued packets a second and client, in both directions: some thousand connections
	heldBurst = 5000  // less than a queue's length, so that one client cannot fill it
)

// held plans what becomes of the packets of a connection without a verdict.
func (pl *planner) held() {
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
	flood := goTo(pl.deny(egress.TooManyPending, drop))
	rules = append(rules, each(func(name string, src, _ field) Rule {
		return Rule{original, limit{src, "held." + name, true, heldRate, heldBurst}, flood}
	})...)
	rules = append(rules, each(func(name string, _, dst field) Rule {
		return Rule{reply, limit{dst, "held." + name, true, heldRate, heldBurst}, flood}
	})...)
	return append(rules, Rule{setPacketMark{NewMark(Held, 0)}, pl.queue(s.Queue, s.Queues, false)})
}
