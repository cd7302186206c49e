package egress

import (
	"encoding/json"
	"net/netip"
	"time"
)

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

// flowJSON is the one JSON form of a Flow: a line of the flow log and an item
// of the API. Fields are only ever added.
type flowJSON struct {
	Time     time.Time `json:"time"`
	Event    string    `json:"event"` // "decided" or "ended"
	Policy   string    `json:"policy,omitempty"`
	Cluster  string    `json:"cluster,omitempty"`
	Action   Action    `json:"action"`
	Reason   Reason    `json:"reason"`
	Rule     string    `json:"rule,omitempty"`
	Observed bool      `json:"observed,omitempty"`
	Proto    Proto     `json:"proto,omitzero"` // none: neither TCP nor UDP
	Src      string    `json:"src,omitempty"`
	Dst      string    `json:"dst,omitempty"`
	Port     uint16    `json:"port,omitempty"` // of the destination, when its address is not known
	Name     Name      `json:"name,omitzero"`
	Literal  bool      `json:"literal,omitempty"`
	Bound    []Name    `json:"bound,omitempty"`
	API      bool      `json:"api,omitempty"`
	Strict   bool      `json:"strict,omitempty"`
	Sent     uint64    `json:"sent,omitempty"`
	Received uint64    `json:"received,omitempty"`
	Seconds  float64   `json:"seconds,omitempty"`
}

// MarshalJSON writes one object without nesting. Everything that
// [Policy.Decide] was given is in it, so that the decision can be replayed.
func (f Flow) MarshalJSON() ([]byte, error) {
	j := flowJSON{
		Time: f.Time, Event: "decided", Policy: f.Policy, Cluster: f.Cluster,
		Action: f.Verdict.Action, Reason: f.Verdict.Reason, Observed: f.Observed,
		Proto: f.Conn.Proto, Name: f.Conn.Name, Literal: f.Conn.Literal, Bound: f.Conn.Bound, API: f.Conn.API, Strict: f.Conn.Strict,
		Sent: f.Sent, Received: f.Received, Seconds: f.Duration.Seconds(),
	}
	if f.End {
		j.Event = "ended"
	}
	if f.Verdict.Rule != nil {
		j.Rule = f.Verdict.Rule.ID
	}
	if f.Conn.Src.Addr().IsValid() {
		j.Src = f.Conn.Src.String()
	}
	if f.Conn.Dst.Addr().IsValid() {
		j.Dst = f.Conn.Dst.String()
	} else {
		j.Port = f.Conn.Dst.Port()
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON wrote; of the rule only its ID is known.
func (f *Flow) UnmarshalJSON(b []byte) error {
	var j flowJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*f = Flow{
		Time: j.Time, Policy: j.Policy, Cluster: j.Cluster, Observed: j.Observed, End: j.Event == "ended",
		Verdict: Verdict{Action: j.Action, Reason: j.Reason},
		Conn:    Conn{Proto: j.Proto, Name: j.Name, Literal: j.Literal, Bound: j.Bound, API: j.API, Strict: j.Strict},
		Sent:    j.Sent, Received: j.Received, Duration: time.Duration(j.Seconds * float64(time.Second)),
	}
	if j.Rule != "" {
		f.Verdict.Rule = &Rule{ID: j.Rule}
	}
	var err error
	if j.Src != "" {
		if f.Conn.Src, err = netip.ParseAddrPort(j.Src); err != nil {
			return err
		}
	}
	f.Conn.Dst = netip.AddrPortFrom(netip.Addr{}, j.Port)
	if j.Dst != "" {
		f.Conn.Dst, err = netip.ParseAddrPort(j.Dst)
	}
	return err
}
