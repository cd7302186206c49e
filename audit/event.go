package audit

import (
	"bytes"
	"net/netip"
	"strconv"
	"time"

	"tidegate.io/tidegate/egress"
)

// event is one line of a log. Its byte slices belong to the line.
type event struct {
	time    []byte
	proto   egress.Proto
	lookup  bool // a question to DNS, of which name is asked
	code    []byte
	src     []byte
	dst     []byte // the destination's address; empty when it is not in the log
	name    []byte // empty: none
	port    uint16
	allowed bool
	rule    []byte
	reason  []byte

	// What the fields below say is settled at the end of the line.
	action, protocol, event, msg, url []byte
	properties, records               []byte
	queryName, responseCode           []byte
}

// set takes one field of a line, in the spelling of Azure's tables, of the
// resource log's envelope, or of our own flow log.
func (e *event) set(key, value []byte) {
	// AzureDiagnostics puts every kind of log into one table, whose columns end
	// with their type: Fqdn_s, DestinationPort_d.
	if n := len(key) - 2; n > 0 && key[n] == '_' {
		key = key[:n]
	}
	switch string(key) {
	case "time", "TimeGenerated", "TimeGenerated [UTC]":
		e.time = value
	case "properties":
		e.properties = value
	case "records":
		e.records = value
	case "msg":
		e.msg = value
	case "Protocol", "proto":
		e.protocol = value
	case "SourceIp", "src", "SourceIP":
		e.src = value
	case "DestinationIp", "dst", "DestinationIP":
		e.dst = value
	case "DestinationPort", "port":
		e.port = portOf(value)
	case "Fqdn", "FQDN", "name":
		e.name = value
	case "TargetUrl":
		e.url = value
	case "Action", "action":
		e.action = value
	case "ActionReason", "reason":
		e.reason = value
	case "Rule", "rule":
		e.rule = value
	case "event":
		e.event = value
	case "QueryName":
		e.queryName = value
	case "ResponseCode":
		e.responseCode = value
	}
}

func portOf(b []byte) uint16 {
	b = bytes.TrimSuffix(b, []byte(".0")) // a number of AzureDiagnostics
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' || n > 65535 {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	if n > 65535 {
		return 0
	}
	return uint16(n)
}

// read fills e from a line's object, and reports whether it is of a kind that
// is understood. Lines that are understood and tell nothing have ok and no
// protocol.
func (e *event) read(line []byte) (ok bool) {
	*e = event{}
	if eachField(line, "properties", e.set) != nil {
		return false
	}
	if e.records != nil {
		return true
	}
	if inner := e.properties; len(inner) > 0 {
		// A string that holds an object, as some exports have it.
		if eachField(inner, "", e.set) != nil {
			return false
		}
	}
	switch {
	case len(e.msg) > 0:
		return e.message(e.msg)
	case len(e.queryName) > 0:
		e.lookup, e.name, e.code, e.allowed = true, e.queryName, e.responseCode, bytes.Equal(e.responseCode, []byte("NOERROR"))
		e.proto, e.port = egress.UDP, 53
		e.host()
		return true
	case len(e.action) == 0:
		return false
	case string(e.event) == "ended":
		return true
	}
	if !e.setProto(e.protocol) {
		return true // ICMP and the like
	}
	e.setAction(e.action)
	e.split()
	e.host()
	return true
}

// setProto reads HTTP, HTTPS, TCP, UDP in any case; others are none.
func (e *event) setProto(b []byte) bool {
	switch {
	case bytes.EqualFold(b, []byte("https")):
		e.proto = egress.HTTPS
	case bytes.EqualFold(b, []byte("tcp")):
		e.proto = egress.TCP
	case bytes.EqualFold(b, []byte("http")):
		e.proto = egress.HTTP
	case bytes.EqualFold(b, []byte("udp")):
		e.proto = egress.UDP
	}
	return e.proto != 0
}

// setAction reads what was decided. An alert, of threat intelligence or of
// intrusion detection, decides nothing: another line tells what became of it.
func (e *event) setAction(b []byte) {
	switch {
	case bytes.EqualFold(b, []byte("allow")):
		e.allowed = true
	case len(b) >= len("alert") && bytes.EqualFold(b[:len("alert")], []byte("alert")):
		e.proto = 0
	}
}

// split takes ports off addresses, which our own log writes together.
func (e *event) split() {
	if host, port, ok := cutPort(e.src); ok && port != 0 {
		e.src = host
	}
	if host, port, ok := cutPort(e.dst); ok && port != 0 {
		e.dst, e.port = host, port
	}
	if host, port, ok := cutPort(e.name); ok && port != 0 {
		e.name = host
		if e.port == 0 {
			e.port = port
		}
	}
	if len(e.name) == 0 && len(e.url) > 0 {
		e.name, _, _ = bytes.Cut(e.url, []byte("/"))
	}
}

// cutPort splits host:port and [host]:port; an IPv6 address alone is not cut.
func cutPort(b []byte) (host []byte, port uint16, ok bool) {
	i := bytes.LastIndexByte(b, ':')
	if i < 0 || i != bytes.IndexByte(b, ':') && b[0] != '[' {
		return b, 0, false
	}
	host = b[:i]
	if host = bytes.TrimPrefix(host, []byte("[")); len(host) < i {
		host = bytes.TrimSuffix(host, []byte("]"))
	}
	return host, portOf(b[i+1:]), true
}

// host puts the name into canonical case, in place where it can.
func (e *event) host() {
	e.name = bytes.TrimSuffix(e.name, []byte("."))
	for _, c := range e.name {
		if 'A' <= c && c <= 'Z' {
			e.name = []byte(lower(string(e.name)))
			return
		}
	}
}

// message reads the text of the older logs (AzureDiagnostics):
//
//	HTTPS request from 10.0.0.4:50312 to mcr.microsoft.com:443. Action: Deny. No rule matched.
//	HTTPS request from 10.0.0.4:50312 to mcr.microsoft.com:443. Url: mcr.microsoft.com. Action: Allow. Policy: p. Rule Collection Group: g. Rule Collection: c. Rule: r. Web Category: w
//	TCP request from 10.0.0.4:50312 to 20.1.2.3:9000. Action: Allow. Rule Collection: c. Rule: r
//	HTTP request from 10.0.0.4:50312 to evil.example:80. Action: Deny. ThreatIntel: Bot Networks
//	DNS Request: 10.0.0.4:48197 - 15676 AAAA IN a.example. udp 43 false 512 NXDOMAIN qr,rd,ra 100 0.003s
func (e *event) message(m []byte) bool {
	if rest, ok := bytes.CutPrefix(m, []byte("DNS Request: ")); ok {
		f := bytes.Fields(rest)
		if len(f) < 11 {
			return false
		}
		e.src, e.name, e.code = f[0], f[5], f[9]
		e.lookup, e.proto, e.port, e.allowed = true, egress.UDP, 53, string(e.code) == "NOERROR"
		e.split()
		e.host()
		return true
	}
	proto, rest, ok := bytes.Cut(m, []byte(" request from "))
	if !ok {
		return false
	}
	if proto = bytes.TrimSpace(proto); !e.setProto(proto) {
		return true
	}
	head, tail, ok := bytes.Cut(rest, []byte(". Action: "))
	if !ok {
		e.proto = 0
		return bytes.Contains(rest, []byte(" was DNAT'ed to ")) // inbound
	}
	src, dst, _ := bytes.Cut(head, []byte(" to "))
	dst, _, _ = bytes.Cut(dst, []byte(". Url: "))
	e.src = src
	if e.proto.Named() {
		e.name = dst
	} else {
		e.dst = dst
	}
	word, tail, _ := bytes.Cut(tail, []byte("."))
	e.setAction(bytes.TrimSpace(word))
	if _, after, found := bytes.Cut(tail, []byte(" Rule: ")); found {
		e.rule, _, _ = bytes.Cut(after, []byte(". Web Category: "))
	}
	for _, mark := range []string{" Reason: ", " ThreatIntel: "} {
		if _, after, found := bytes.Cut(tail, []byte(mark)); found {
			e.reason = bytes.TrimSuffix(after, []byte("."))
		}
	}
	e.split()
	e.host()
	return true
}

// at is when it happened; the zero Time when that cannot be read.
func (e *event) at() time.Time {
	b := e.time
	digits := func(i, j int) int {
		n := 0
		for _, c := range b[i:j] {
			n = n*10 + int(c-'0')
		}
		return n
	}
	// 2006-01-02T15:04:05[.999]Z is all that firewalls write; it is read here
	// because time.Parse would be a third of a line's cost.
	if len(b) >= 20 && b[len(b)-1] == 'Z' && b[4] == '-' && b[7] == '-' && b[10] == 'T' && b[13] == ':' && b[16] == ':' && allDigits(b[:4], b[5:7], b[8:10], b[11:13], b[14:16], b[17:19]) {
		return time.Date(digits(0, 4), time.Month(digits(5, 7)), digits(8, 10), digits(11, 13), digits(14, 16), digits(17, 19), 0, time.UTC)
	}
	t, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Second)
}

func allDigits(parts ...[]byte) bool {
	for _, p := range parts {
		for _, c := range p {
			if c < '0' || c > '9' {
				return false
			}
		}
	}
	return true
}

// connection is the event's Conn, for policies of ours. A name is taken to have
// been resolved: the log does not say.
func connection(proto egress.Proto, src, dst, name string, port uint16) egress.Conn {
	c := egress.Conn{Proto: proto}
	if a, err := netip.ParseAddr(src); err == nil {
		c.Src = netip.AddrPortFrom(a, 0)
	}
	a, _ := netip.ParseAddr(dst)
	if n, err := egress.ParseName(name); err == nil {
		c.Name, c.Bound = n, []egress.Name{n}
		if !a.IsValid() {
			a = unknownAddr
		}
	}
	c.Dst = netip.AddrPortFrom(a, port)
	return c
}

// unknownAddr stands for the address of a name, which Azure's log leaves out:
// any that is not guarded.
var unknownAddr = netip.AddrFrom4([4]byte{20, 0, 0, 1})

// endpointText is how a group is shown.
func endpointText(proto egress.Proto, host string, port uint16) string {
	if host == "" {
		host = "(no name)"
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		host = "[" + host + "]"
	}
	if port == 0 {
		return proto.String() + "://" + host // the log does not say
	}
	return proto.String() + "://" + host + ":" + strconv.Itoa(int(port))
}
