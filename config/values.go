package config

import (
	"fmt"
	"net/netip"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"tidegate.io/tidegate/egress"
)

// value reads a word by parse; an error gets the word's line.
func value[T any](w word, parse func(string) (T, error)) (T, error) {
	v, err := parse(w.text)
	if err != nil {
		return v, lineError{w.line, err.Error()}
	}
	return v, nil
}

func values[T any](ws []word, parse func(string) (T, error)) ([]T, error) {
	if len(ws) == 0 {
		return nil, nil
	}
	vs := make([]T, 0, len(ws))
	for _, w := range ws {
		v, err := value(w, parse)
		if err != nil {
			return nil, err
		}
		vs = append(vs, v)
	}
	return vs, nil
}

// optional is value for a word that may be missing.
func optional[T any](w word, without T, parse func(string) (T, error)) (T, error) {
	if w.line == 0 {
		return without, nil
	}
	return value(w, parse)
}

// parsePrefix reads a prefix, or an address for the prefix that is only it.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, fmt.Errorf("%q is neither an address nor a prefix", s)
	case p != p.Masked():
		return p, fmt.Errorf("prefix %s has bits set behind its length; write %s", p, p.Masked())
	}
	return p, nil
}

// addressAt reads an address with a port, or without one for port.
func addressAt(port uint16) func(string) (netip.AddrPort, error) {
	return func(s string) (netip.AddrPort, error) {
		if a, err := netip.ParseAddr(s); err == nil {
			return netip.AddrPortFrom(a, port), nil
		}
		ap, err := netip.ParseAddrPort(s)
		if err != nil || ap.Port() == 0 {
			return ap, fmt.Errorf("%q: want an address, or address:port", s)
		}
		return ap, nil
	}
}

func parseMode(s string) (Mode, error) {
	for m, name := range modeNames {
		if name == s {
			return Mode(m), nil
		}
	}
	return 0, fmt.Errorf("mode %q: want enforce or observe", s)
}

func parseDNS(s string) (DNS, error) {
	for d, name := range dnsNames {
		if name == s && DNS(d) != DNSShows {
			return DNS(d), nil
		}
	}
	return 0, fmt.Errorf("dns %q: want gateway or elsewhere", s)
}

// parseByAddress reads how the API server may be dialled.
func parseByAddress(s string) (bool, error) {
	switch s {
	case "by-address":
		return true, nil
	case "by-name":
		return false, nil
	}
	return false, fmt.Errorf("apiServer %q: want by-address or by-name", s)
}

// parseName reads a name that a person wrote: other alphabets are turned into
// the form that DNS carries (UTS 46 non-transitional, RFC 5891 section 5).
func parseName(s string) (egress.Name, error) {
	ascii, err := toASCII(s)
	if err != nil {
		return egress.Name{}, err
	}
	return egress.ParseName(ascii)
}

// parseZone reads a zone: its own name and all below.
func parseZone(s string) ([]egress.Pattern, error) {
	n, err := parseName(s)
	if err != nil {
		return nil, err
	}
	below, err := egress.ParsePattern("*." + n.String())
	if err != nil {
		return nil, err
	}
	return []egress.Pattern{egress.Exactly(n), below}, checkSuffix(below)
}

// parseEndpoint is egress.ParseEndpoint for people: other alphabets are
// converted, and a wildcard over a public suffix, such as *.co.uk, is refused.
func parseEndpoint(s string) (egress.Endpoint, error) {
	ascii, err := toASCII(s)
	if err != nil {
		return egress.Endpoint{}, err
	}
	e, err := egress.ParseEndpoint(ascii)
	if err != nil {
		return e, err
	}
	if p, ok := e.Host.(egress.Pattern); ok {
		return e, checkSuffix(p)
	}
	return e, nil
}

func checkSuffix(p egress.Pattern) error {
	if _, exact := p.Exact(); exact {
		return nil
	}
	fixed := p.Fixed().String()
	if suffix, icann := publicsuffix.PublicSuffix(fixed); icann && suffix == fixed {
		return fmt.Errorf("pattern %q: anybody can register a name under %s", p, fixed)
	}
	return nil
}

// toASCII converts what is not ASCII, label by label, and leaves the rest alone.
func toASCII(s string) (string, error) {
	for i := range len(s) {
		if s[i] >= 0x80 {
			a, err := idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false)).ToASCII(s)
			if err != nil {
				return "", fmt.Errorf("%q: %w", s, err)
			}
			return a, nil
		}
	}
	return s, nil
}
