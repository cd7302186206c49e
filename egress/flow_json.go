package egress

import (
	"encoding/json"
	"math"
	"net/netip"
	"strconv"
	"time"
)

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

// MarshalJSON is AppendJSON.
func (f Flow) MarshalJSON() ([]byte, error) { return f.AppendJSON(nil), nil }

// AppendJSON appends one object without nesting, as encoding/json would write it, and a tenth of its
// time: it is written twice for every connection. Everything that [Policy.Decide] was given is in
// it, so that the decision can be replayed.
func (f *Flow) AppendJSON(b []byte) []byte {
	b = append(b, `{"time":"`...)
	b = f.Time.AppendFormat(b, time.RFC3339Nano)
	event := "decided"
	if f.End {
		event = "ended"
	}
	b = append(append(b, `","event":"`...), event...)
	b = append(b, '"')
	b = appendField(b, "policy", f.Policy)
	b = appendField(b, "cluster", f.Cluster)
	b = appendField(b, "action", f.Verdict.Action.String())
	b = appendField(b, "reason", f.Verdict.Reason.String())
	if f.Verdict.Rule != nil {
		b = appendField(b, "rule", f.Verdict.Rule.ID)
	}
	b = appendFlag(b, "observed", f.Observed)
	b = f.Conn.appendJSON(b)
	b = appendCount(b, "sent", f.Sent)
	b = appendCount(b, "received", f.Received)
	if f.Duration != 0 {
		b = append(b, `,"seconds":`...)
		b = appendSeconds(b, f.Duration.Seconds())
	}
	return append(b, '}')
}

func (c *Conn) appendJSON(b []byte) []byte {
	if c.Proto != 0 {
		b = appendField(b, "proto", c.Proto.String())
	}
	if c.Src.Addr().IsValid() {
		b = c.Src.AppendTo(append(b, `,"src":"`...))
		b = append(b, '"')
	}
	if c.Dst.Addr().IsValid() {
		b = c.Dst.AppendTo(append(b, `,"dst":"`...))
		b = append(b, '"')
	} else {
		b = appendCount(b, "port", uint64(c.Dst.Port()))
	}
	b = appendField(b, "name", c.Name.s)
	b = appendFlag(b, "literal", c.Literal)
	for i, n := range c.Bound {
		if i == 0 {
			b = append(b, `,"bound":[`...)
		} else {
			b = append(b, ',')
		}
		b = appendString(b, n.s)
	}
	if len(c.Bound) > 0 {
		b = append(b, ']')
	}
	b = appendFlag(b, "api", c.API)
	return appendFlag(b, "strict", c.Strict)
}

// The append functions leave out what is zero, as omitempty does.

func appendField(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(appendKey(b, key), value)
}

func appendFlag(b []byte, key string, value bool) []byte {
	if !value {
		return b
	}
	return append(appendKey(b, key), "true"...)
}

func appendCount(b []byte, key string, n uint64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendUint(appendKey(b, key), n, 10)
}

func appendKey(b []byte, key string) []byte {
	b = append(append(b, `,"`...), key...)
	return append(b, `":`...)
}

// appendString quotes s. Names are plain; what people write in ids may be anything.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // of a string: never an error
			return append(b, quoted...)
		}
	}
	b = append(append(b, '"'), s...)
	return append(b, '"')
}

// appendSeconds writes what encoding/json does, which has exponents for small numbers.
func appendSeconds(b []byte, s float64) []byte {
	if math.Abs(s) < 1e-6 {
		number, _ := json.Marshal(s) // finite: never an error
		return append(b, number...)
	}
	return strconv.AppendFloat(b, s, 'f', -1, 64)
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
