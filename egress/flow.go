package egress

import "time"

// Flow is a decided connection as it is logged, served and shown: once when it
// is decided, and once more, with End set, when it is over.
type Flow struct {
	Time     time.Time
	Policy   string // the ID of the policy that decided
	Cluster  string // the scope of the client; empty when it is in none
	Conn     Conn
	Verdict  Verdict
	Observed bool // only observed: a denial was not carried out
	End      bool // it is over, and the fields below are known
	Sent     uint64
	Received uint64 // bytes, as IP packets on the wire
	Duration time.Duration
}
