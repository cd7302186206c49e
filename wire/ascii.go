package wire

import "strings"

// Everything here works on ASCII bytes. The functions of package strings fold Unicode, and a
// host name must not change its meaning on the way from the filter to the server.

// lower is strings.ToLower for ASCII only: that one turns the Kelvin sign into k.
func lower(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return 'A' <= r && r <= 'Z' }) {
		return s
	}
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// equalFold is strings.EqualFold for ASCII only: that one takes the long s for an s.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if a[i] != b[i] && (a[i]|0x20 != b[i]|0x20 || !isAlpha(a[i])) {
			return false
		}
	}
	return true
}

func all(s string, is func(byte) bool) bool {
	for i := range len(s) {
		if !is(s[i]) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isHex(c byte) bool   { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }
func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isHostByte(c byte) bool { return isAlpha(c) || isDigit(c) || c == '-' || c == '_' }

// isToken is a byte of a token (RFC 9110, section 5.6.2).
func isToken(c byte) bool {
	return isAlpha(c) || isDigit(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// isText is a byte that a field value may hold (RFC 9110, section 5.5): no control bytes but
// the tab.
func isText(c byte) bool { return c == '\t' || ' ' <= c && c != 0x7f }

// isTarget is a byte of a path or query: those of RFC 3986, section 3.3, and the few more that
// clients leave as they are (WHATWG URL, percent-encode sets). Space, fragment, backslash and
// what is not ASCII are not among them.
func isTarget(c byte) bool { return '!' <= c && c <= '~' && strings.IndexByte(`#"<>\`, c) < 0 }
