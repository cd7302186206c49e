package kernel

const (
	dnsPort = 53

	beforeConntrack = -300
)

// asked plans the way of questions that clients send to the gateway's own addresses by UDP. Nothing is to be remembered of
// them: there is no other address to put back into the answer, so they go to a socket of their own by their port alone, and
// conntrack, which would cost more than the answer, sees neither. What is fragmented, has options or no checksum is
// redirected as other questions are. Where nobody listens, the kernel's error names the port behind it: the client hears
// nothing and asks again.
//
// It returns the rule that leads there from the chain that all packets enter.
func (pl *planner) asked() []Rule {
	p := pl.settings.Asked
	if p == 0 {
		return nil
	}
	then := []Statement{toUs, untrack, setPort{udpDport, p}, accept}
	pl.chain("asked",
		append(Rule{match{field: anyStart, op: "==", value: plainV4}, match{anyFragment, fragmentBits, "==", 0},
			match{field: udpChecksum, op: "!=", value: 0}, in{v4Src, "clients.v4"}}, then...),
		append(Rule{match{field: v6Next, op: "==", value: protoUDP}, in{v6Src, "clients.v6"}}, then...))
	pl.base("answered", "filter", "output", beforeConntrack, false,
		Rule{port(udpSport, p), untrack, setPort{udpSport, dnsPort}, accept})
	return []Rule{{match{field: anyDport, op: "==", value: dnsPort}, jumpTo("asked")}}
}
