package gateway

import "tidegate.io/tidegate/egress"

// Live is a decided connection that runs.
type Live struct {
	// Conn is what was known when it was decided. Where its number stands for a rule alone, it is
	// the addresses, with Proto TCP or UDP.
	Conn egress.Conn

	// Rule is the number in its mark; 0 is none.
	Rule uint32
}

// Permitted reports whether p lets the connection go on. Whether a name has the address was proven
// when the connection began and is not asked again. Where the name is not known, a connection
// lives as long as its rule is unchanged, which holds reports. One whose source is nobody's client
// any more is denied, whatever a rule for everybody says: the kernel would not let it begin again.
func (l *Live) Permitted(p *egress.Policy, holds func(rule uint32) bool) bool {
	nameless := !l.Conn.Proto.Named()
	permitted := p.Decide(l.Conn).Action == egress.Allow || nameless && l.Rule != 0 && holds(l.Rule)
	return permitted && p.Cluster(l.Conn.Src.Addr()) != nil
}
