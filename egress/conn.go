package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Conn is what is known of a connection when it has to be decided. At its first
// packet only addresses are known and Proto is TCP or UDP; once its first bytes
// have been read Proto is HTTPS or HTTP, and Name is what they name.
type Conn struct {
	Proto   Proto
	Src     netip.AddrPort // the client; invalid when it does not matter, and then only rules for every client apply
	Dst     netip.AddrPort // an invalid address with a port is "not known yet"
	Name    Name           // the server's name as the client showed it; zero when it showed none
	Literal bool           // an address stood where a name belongs
	Bound   []Name         // the names that DNS gave Dst's address for, in the client's scope
	API     bool           // Dst's address is a current one of the API server of the client's cluster
	Strict  bool           // the client's DNS passes us, so an address without a binding has none
}

// ParseConn reads "proto [source >] destination [name]". The destination is
// address:port, or name:port when the address is not known; the name of an
// HTTP or HTTPS connection stands behind an address, an address there is a
// literal, and "-" is no name. A source may lack its port.
func ParseConn(s string) (Conn, error) {
	c, err := parseConn(strings.Fields(s))
	if err != nil {
		return Conn{}, fmt.Errorf("connection %q: %w", clip(s), err)
	}
	return c, nil
}

func parseConn(words []string) (c Conn, err error) {
	if len(words) < 2 {
		return c, errors.New("want proto [source >] destination [name], as in: https 20.1.2.3:443 mcr.microsoft.com")
	}
	if c.Proto, err = ParseProto(words[0]); err != nil {
		return c, err
	}
	words = words[1:]
	if len(words) > 2 && words[1] == ">" {
		if c.Src, err = parseSource(words[0]); err != nil {
			return c, err
		}
		words = words[2:]
	}
	if err := c.parseDestination(words[0]); err != nil {
		return c, err
	}
	switch {
	case len(words) > 2:
		return c, fmt.Errorf("unexpected %q", words[2])
	case len(words) == 1 || words[1] == "-":
		return c, nil
	case !c.Name.IsZero():
		return c, errors.New("two names")
	}
	if c.Name, err = ParseName(words[1]); errors.Is(err, ErrAddress) || isAddress(words[1]) {
		c.Name, c.Literal = Name{}, true
		return c, nil
	}
	return c, err
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return err == nil
}

func parseSource(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a.Unmap(), 0), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return ap, fmt.Errorf("source %q: want an address", s)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

func (c *Conn) parseDestination(s string) error {
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Port() != 0 && ap.Addr().Zone() == "" {
		c.Dst = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
		return nil
	}
	host, port, _ := cutLast(s, ':')
	n, err := parsePort(port)
	if err != nil {
		return fmt.Errorf("destination %q: want address:port or name:port", s)
	}
	c.Dst = netip.AddrPortFrom(netip.Addr{}, n)
	c.Name, err = ParseName(host)
	return err
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// String returns the text form. What only the gateway knows (Bound, API,
// Strict) is not part of it.
func (c Conn) String() string {
	var b strings.Builder
	b.WriteString(c.Proto.String())
	b.WriteByte(' ')
	switch {
	case c.Src.Addr().IsValid() && c.Src.Port() == 0:
		b.WriteString(c.Src.Addr().String() + " > ")
	case c.Src.Addr().IsValid():
		b.WriteString(c.Src.String() + " > ")
	}
	if !c.Dst.Addr().IsValid() {
		fmt.Fprintf(&b, "%s:%d", c.Name, c.Dst.Port())
		return b.String()
	}
	b.WriteString(c.Dst.String())
	switch {
	case c.Literal:
		b.WriteString(" " + c.Dst.Addr().String())
	case !c.Name.IsZero():
		b.WriteString(" " + c.Name.String())
	}
	return b.String()
}

// Binding is one DNS answer: the clients of Scope were told that Name has Addr.
// Name is the one they asked for, not the end of its chain of CNAMEs.
type Binding struct {
	Scope   string // the name of a Cluster
	Name    Name
	Addr    netip.Addr
	Expires time.Time // when it no longer permits new connections
}
