package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Proto is what is spoken: TCP and UDP are judged by address, HTTP and HTTPS by
// the name that the client shows. The zero Proto is none.
type Proto uint8

// The protocols of an [Endpoint].
const (
	TCP Proto = iota + 1
	UDP
	HTTP
	HTTPS
)

var protoNames = [...]string{"", "tcp", "udp", "http", "https"}

// ParseProto reads "tcp", "udp", "http" or "https".
func ParseProto(s string) (Proto, error) {
	for p := TCP; p <= HTTPS; p++ {
		if protoNames[p] == s {
			return p, nil
		}
	}
	return 0, fmt.Errorf("protocol %q: want tcp, udp, http or https", clip(s))
}

// String returns the lower-case word.
func (p Proto) String() string {
	if int(p) < len(protoNames) {
		return protoNames[p]
	}
	return "proto(" + strconv.Itoa(int(p)) + ")"
}

// Named reports whether the protocol shows a name: HTTP and HTTPS.
func (p Proto) Named() bool { return p == HTTP || p == HTTPS }

// Transport returns what carries p: UDP for UDP, TCP for the others.
func (p Proto) Transport() Proto {
	if p == UDP {
		return UDP
	}
	return TCP
}

// MarshalText is String.
func (p Proto) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is ParseProto.
func (p *Proto) UnmarshalText(b []byte) (err error) {
	*p, err = ParseProto(string(b))
	return err
}

// Ports is a range of ports, both ends included: "443" or "30000-32767". The
// zero Ports holds none, for port 0 is never one.
type Ports struct{ First, Last uint16 }

// ParsePorts reads a port or a range.
func ParsePorts(s string) (Ports, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, errA := parsePort(first)
	b, errB := parsePort(last)
	if errA != nil || errB != nil || b < a {
		return Ports{}, fmt.Errorf("ports %q: want a port from 1 to 65535, or a range", clip(s))
	}
	return Ports{a, b}, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '0' || s[0] == '+' {
		return 0, errors.New("not a port")
	}
	return uint16(n), nil
}

// Has reports whether port is in the range.
func (p Ports) Has(port uint16) bool { return port != 0 && p.First <= port && port <= p.Last }

// String returns the text form.
func (p Ports) String() string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return strconv.Itoa(int(p.First)) + "-" + strconv.Itoa(int(p.Last))
}

// Host is the destination part of an [Endpoint]: a [Pattern], a [Net] or a
// [Tag], and nothing else. Hosts are comparable.
type Host interface {
	String() string
	host()
}

// Net is a prefix of addresses; a single address has all its bits.
type Net struct{ netip.Prefix }

// Tag is an Azure service tag, such as AzureCloud.westeurope. It stands for a
// list of prefixes that Microsoft publishes, and has to be replaced by them
// before [Compile].
type Tag struct{ name string }

// ParseTag reads a service tag's name, without the @ of the endpoint's text form.
func ParseTag(s string) (Tag, error) {
	if s == "" || len(s) > maxName {
		return Tag{}, fmt.Errorf("service tag %q: want a name such as AzureCloud.westeurope", clip(s))
	}
	for i := range len(s) {
		if !nameByte(s[i]) && s[i] != '.' {
			return Tag{}, fmt.Errorf("service tag %q: byte %q is not allowed", s, s[i])
		}
	}
	return Tag{s}, nil
}

// Name returns the tag's name as published.
func (t Tag) Name() string { return t.name }

// String returns the name behind an @.
func (t Tag) String() string { return "@" + t.name }

// String returns an address where the prefix is one, and the prefix otherwise.
func (n Net) String() string {
	if n.IsSingleIP() {
		return n.Addr().String()
	}
	return n.Prefix.String()
}

func (Pattern) host() {}
func (Net) host()     {}
func (Tag) host()     {}

// Endpoint is one destination: how, where and on which ports. It is comparable.
type Endpoint struct {
	Proto Proto
	Host  Host
	Ports Ports
}

// ParseEndpoint reads "proto://host:ports", where host is a pattern, an address
// or prefix (IPv6 in brackets), or a service tag behind an @. HTTP and HTTPS
// are judged by name and so take a pattern only.
func ParseEndpoint(s string) (Endpoint, error) {
	e, err := parseEndpoint(s)
	if err != nil {
		return Endpoint{}, fmt.Errorf("endpoint %q: %w", clip(s), err)
	}
	return e, nil
}

// MustParseEndpoint is ParseEndpoint for constants: it panics on an error.
func MustParseEndpoint(s string) Endpoint {
	e, err := ParseEndpoint(s)
	if err != nil {
		panic(err)
	}
	return e
}

func parseEndpoint(s string) (e Endpoint, err error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return e, errors.New("want proto://host:port")
	}
	if e.Proto, err = ParseProto(scheme); err != nil {
		return e, err
	}
	colon := strings.LastIndexByte(rest, ':')
	if colon < 0 || strings.HasSuffix(rest, "]") {
		return e, errors.New("no port")
	}
	if e.Ports, err = ParsePorts(rest[colon+1:]); err != nil {
		return e, err
	}
	if e.Host, err = parseHost(rest[:colon]); err != nil {
		return e, err
	}
	if _, named := e.Host.(Pattern); e.Proto.Named() && !named {
		return e, fmt.Errorf("%s is judged by name; use tcp:// for addresses and tags", e.Proto)
	}
	return e, nil
}

func parseHost(s string) (Host, error) {
	if tag, ok := strings.CutPrefix(s, "@"); ok {
		return ParseTag(tag)
	}
	inner, bracketed := strings.CutPrefix(s, "[")
	if bracketed {
		if inner, bracketed = strings.CutSuffix(inner, "]"); !bracketed {
			return nil, errors.New("no closing bracket")
		}
		n, err := parseNet(inner)
		if err == nil && n.Addr().Is4() {
			return nil, errors.New("brackets are for IPv6")
		}
		return n, err
	}
	if strings.Contains(s, "/") {
		return parseNet(s)
	}
	if mayBeAddress(s) {
		if _, err := netip.ParseAddr(s); err == nil {
			return parseNet(s)
		}
	}
	return ParsePattern(s)
}

// mayBeAddress saves most names from being parsed as an address first.
func mayBeAddress(s string) bool {
	return s != "" && s[0] >= '0' && s[0] <= '9' || strings.IndexByte(s, ':') >= 0
}

func parseNet(s string) (Net, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, errAddr := netip.ParseAddr(s)
		if errAddr != nil || a.Zone() != "" {
			return Net{}, fmt.Errorf("%q is neither an address nor a prefix", s)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	switch {
	case p.Addr().Is4In6():
		return Net{}, fmt.Errorf("%q is an IPv4 address in IPv6 form; write it as IPv4", s)
	case p != p.Masked():
		return Net{}, fmt.Errorf("prefix %s has bits set behind its length; write %s", p, p.Masked())
	}
	return Net{p}, nil
}

// IsZero reports whether e is no endpoint.
func (e Endpoint) IsZero() bool { return e == Endpoint{} }

// String returns the text form.
func (e Endpoint) String() string { return string(e.append(nil)) }

// append appends the text form.
func (e Endpoint) append(b []byte) []byte {
	if e.Host == nil {
		return b
	}
	b = append(append(b, e.Proto.String()...), "://"...)
	if n, ok := e.Host.(Net); ok && n.Addr().Is6() {
		b = append(append(append(b, '['), n.String()...), ']')
	} else {
		b = append(b, e.Host.String()...)
	}
	b = strconv.AppendUint(append(b, ':'), uint64(e.Ports.First), 10)
	if e.Ports.Last != e.Ports.First {
		b = strconv.AppendUint(append(b, '-'), uint64(e.Ports.Last), 10)
	}
	return b
}

// MarshalText is String.
func (e Endpoint) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText is ParseEndpoint.
func (e *Endpoint) UnmarshalText(b []byte) error {
	p, err := ParseEndpoint(string(b))
	if err != nil {
		return err
	}
	*e = p
	return nil
}
