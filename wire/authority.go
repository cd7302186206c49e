package wire

import (
	"net/netip"
	"strconv"
	"strings"
)

// Authority is a host and a port as an HTTP client wrote them in Host or in a request target,
// made canonical: letters in lower case, one trailing dot gone. What is judged and what is sent
// on are printed from the same value, so they cannot differ.
type Authority struct {
	// Host is a name, or an address without its brackets.
	Host string

	// Port is 0 when there was none.
	Port uint16

	// Literal says that Host is an address in some spelling and never a name: resolvers of
	// the C library take 0177.0.0.1, 2130706433 and 0x7f.1 for addresses.
	Literal bool
}

// Addr is the address of a literal in its ordinary spelling. It is invalid for a name and for
// the other spellings, about which programs disagree.
func (a Authority) Addr() netip.Addr {
	if !a.Literal {
		return netip.Addr{}
	}
	addr, _ := netip.ParseAddr(a.Host)
	return addr
}

// String is the text form that [ParseAuthority] reads.
func (a Authority) String() string {
	return string(a.append(nil))
}

func (a Authority) append(b []byte) []byte {
	if strings.Contains(a.Host, ":") {
		b = append(append(append(b, '['), a.Host...), ']')
	} else {
		b = append(b, a.Host...)
	}
	if a.Port != 0 {
		b = strconv.AppendUint(append(b, ':'), uint64(a.Port), 10)
	}
	return b
}

// ParseAuthority reads "host" or "host:port" (RFC 3986, section 3.2, without user information).
// Names consist of letters, digits, dots, hyphens and underscores; percent-encoding, zone
// identifiers, an empty port and port 0 are refused with [ErrHost].
func ParseAuthority(s string) (Authority, error) {
	host, port, found := cutPort(s)
	var a Authority
	if found {
		if !parsePort(port, &a.Port) {
			return Authority{}, ErrHost
		}
	}
	if strings.HasPrefix(host, "[") {
		addr, err := netip.ParseAddr(strings.TrimSuffix(host[1:], "]"))
		if err != nil || !addr.Is6() || addr.Zone() != "" || !strings.HasSuffix(host, "]") {
			return Authority{}, ErrHost
		}
		a.Host, a.Literal = addr.String(), true
		return a, nil
	}
	host = strings.TrimSuffix(host, ".")
	const maxName = 253 // RFC 1035, section 2.3.4, as text
	if host == "" || len(host) > maxName {
		return Authority{}, ErrHost
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || !all(label, isHostByte) {
			return Authority{}, ErrHost
		}
	}
	a.Host = lower(host)
	a.Literal = isLiteral(a.Host)
	return a, nil
}

// cutPort cuts at the colon that is not inside brackets.
func cutPort(s string) (host, port string, found bool) {
	i := strings.LastIndexByte(s, ':')
	if i < strings.LastIndexByte(s, ']') || i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// parsePort reads 1 to 65535 in its only decimal spelling.
func parsePort(s string, port *uint16) bool {
	if s == "" || s[0] == '0' || !all(s, isDigit) {
		return false
	}
	n, err := strconv.ParseUint(s, 10, 16)
	*port = uint16(n)
	return err == nil
}

// isLiteral reports whether host, in lower case, ends in a number, which makes it an IPv4
// address to a URL parser (WHATWG URL, "ends in a number checker").
func isLiteral(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	return all(last, isDigit) || strings.HasPrefix(last, "0x") && all(last[2:], isHex)
}
