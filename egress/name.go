package egress

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of RFC 1035, section 2.3.4, in the dotted text form.
const (
	maxName  = 253
	maxLabel = 63
)

// ErrAddress is wrapped by the error of [ParseName] when the input is an
// address, in whatever disguise ("1.2.3.4", "0177.1", "2130706433", "0x7f.1"),
// and so can never be a name.
var ErrAddress = errors.New("an address, not a name")

// Name is a DNS name in canonical form: lower case, no trailing dot, at least
// one label, no address in disguise. It is comparable; the zero Name is no name
// at all. Only [ParseName] makes one.
type Name struct{ s string }

// ParseName canonicalises s bytewise: ASCII letters are lowered (never by
// Unicode folding, which maps U+212A KELVIN SIGN to k and so lets one spelling
// be judged and another be sent), exactly one trailing dot is dropped, and
// everything that is not letters, digits, '-', '_' and single dots is refused.
// A name whose last label is a number is refused with [ErrAddress], as WHATWG
// URL section 3.5 does. It does not allocate for canonical input.
func ParseName(s string) (Name, error) {
	c := strings.TrimSuffix(s, ".")
	if err := checkName(c); err != nil {
		return Name{}, fmt.Errorf("name %q: %w", clip(s), err)
	}
	return Name{lower(c)}, nil
}

// MustParseName is ParseName for constants: it panics on an error.
func MustParseName(s string) Name {
	n, err := ParseName(s)
	if err != nil {
		panic(err)
	}
	return n
}

func checkName(s string) error {
	if s == "" {
		return errors.New("empty")
	}
	if len(s) > maxName {
		return fmt.Errorf("longer than %d bytes", maxName)
	}
	start := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '.' {
			if !nameByte(s[i]) {
				return fmt.Errorf("byte %q is not allowed in a name", s[i])
			}
			continue
		}
		switch n := i - start; {
		case n == 0:
			return errors.New("empty label")
		case n > maxLabel:
			return fmt.Errorf("label longer than %d bytes", maxLabel)
		}
		if i == len(s) && isNumber(s[start:]) {
			return ErrAddress
		}
		start = i + 1
	}
	return nil
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// isNumber reports whether some resolver would read label as (the last part
// of) an IPv4 address: all digits, or the hexadecimal form.
func isNumber(label string) bool {
	if len(label) >= 2 && label[0] == '0' && (label[1] == 'x' || label[1] == 'X') {
		return true
	}
	for i := range len(label) {
		if label[i] < '0' || label[i] > '9' {
			return false
		}
	}
	return true
}

// lower is the ASCII-only, bytewise lower case of s.
func lower(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if b[i] >= 'A' && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// clip bounds what an error quotes of hostile input.
func clip(s string) string {
	if len(s) > maxName+3 {
		return s[:maxName] + "..."
	}
	return s
}

// String returns the canonical text, without a trailing dot; "" for the zero Name.
func (n Name) String() string { return n.s }

// IsZero reports whether n is no name.
func (n Name) IsZero() bool { return n.s == "" }

// MarshalText is String.
func (n Name) MarshalText() ([]byte, error) { return []byte(n.s), nil }

// UnmarshalText is ParseName; empty text is the zero Name.
func (n *Name) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*n = Name{}
		return nil
	}
	p, err := ParseName(string(b))
	if err != nil {
		return err
	}
	*n = p
	return nil
}
