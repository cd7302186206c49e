//go:build linux

package lab

import (
	"bytes"
	"context"
	"strings"
)

// nameTactics: the address is the permitted name's, and what stands in the place of the name is such that two readers
// could read two things, or is no name.
func nameTactics() []tactic {
	var all []tactic
	add := func(name, source string, make func(t *Try, base string) hello) {
		all = append(all, tactic{name: "shows " + name, source: source, axes: byFamily | byHello, evil: showing(make), twin: showing(plainName)})
	}
	one := func(name, source string, make func(base, evil string) string) {
		add(name, source, func(t *Try, base string) hello { return sni(make(base, t.Token+"."+evilSuffix)) })
	}
	one("an evil name", "RFC 6066 section 3", func(_, evil string) string { return evil })
	one("an evil name in capitals", "RFC 4343", func(_, evil string) string { return strings.ToUpper(evil) })
	one("the permitted name, NUL, and an evil one", "CVE-2009-2408", func(base, evil string) string { return base + "\x00." + evil })
	one("an evil name, NUL, and the permitted one", "CVE-2009-2408", func(base, evil string) string { return evil + "\x00." + base })
	one("the permitted name as a child of an evil one", "Azure Firewall FAQ", func(base, evil string) string { return base + "." + evil })
	one("the permitted name with something before it", "Azure Firewall FAQ", func(base, _ string) string { return "x" + base })
	one("the permitted name and two dots", "CVE-2022-24825", func(base, _ string) string { return base + ".." })
	one("the permitted name after a dot", "RFC 1035 section 2.3.1", func(base, _ string) string { return "." + base })
	one("the permitted name in brackets", "CVE-2022-29188", func(base, _ string) string { return "[" + base + "]" })
	one("the permitted name with a port", "RFC 3986 section 3.2", func(base, _ string) string { return base + ":443" })
	one("a user at the permitted name", "RFC 3986 section 3.2.1", func(base, evil string) string { return evil + "@" + base })
	one("the permitted name at an evil one", "RFC 3986 section 3.2.1", func(base, evil string) string { return base + "@" + evil })
	one("the permitted name with a KELVIN SIGN", "Unicode case folding", func(base, _ string) string { return strings.Replace(base, "o", "\u212a", 1) })
	one("the permitted name with a long s", "Unicode case folding", func(base, _ string) string { return strings.Replace(base, "s", "\u017f", 1) + "s" })
	one("the permitted name with fullwidth dots", "RFC 3490 section 3.1", func(base, _ string) string { return strings.ReplaceAll(base, ".", "\u3002") })
	one("the permitted name in percent encoding", "RFC 3986 section 2.1", func(base, _ string) string { return strings.Replace(base, ".", "%2e", 1) })
	one("the permitted name and a space", "RFC 952", func(base, _ string) string { return base + " " })
	one("the permitted name and a line break", "RFC 952", func(base, _ string) string { return base + "\r\n" })
	one("the permitted name in front of a slash", "RFC 3986", func(base, evil string) string { return base + "/" + evil })
	one("a star in the place of a label", "RFC 4592", func(base, _ string) string { return "*" + base[strings.Index(base, "."):] })
	one("an address", "RFC 6066 section 3", func(string, string) string { return "20.66.66.66" })
	one("an address in hex", "WHATWG URL", func(string, string) string { return "0x14424242" })
	one("a name of 300 bytes that ends in the permitted one", "RFC 1035 section 2.3.4", func(base, _ string) string {
		return strings.Repeat("abcdefghi.", 27) + base
	})
	add("no name", "RFC 6066 section 3", func(*Try, string) hello { return hello{} })
	add("an empty name", "RFC 6066 section 3", func(*Try, string) hello { return sni("") })
	add("two names, the permitted one first", "RFC 6066 section 3", func(t *Try, base string) hello {
		return hello{names: [][]byte{[]byte(base), []byte(t.Token + "." + evilSuffix)}}
	})
	add("two names, the permitted one last", "RFC 6066 section 3", func(t *Try, base string) hello {
		return hello{names: [][]byte{[]byte(t.Token + "." + evilSuffix), []byte(base)}}
	})
	add("two name extensions, the permitted one first", "RFC 8446 section 4.2", func(t *Try, base string) hello {
		return hello{names: [][]byte{[]byte(base)}, more: [][]byte{[]byte(t.Token + "." + evilSuffix)}}
	})
	add("two name extensions, the permitted one last", "RFC 8446 section 4.2", func(t *Try, base string) hello {
		return hello{names: [][]byte{[]byte(t.Token + "." + evilSuffix)}, more: [][]byte{[]byte(base)}}
	})
	add("a name of another type", "RFC 6066 section 3", func(_ *Try, base string) hello { return hello{names: [][]byte{[]byte(base)}, nameType: 1} })
	add("an evil name behind 14 KB of padding", "RFC 7685; Envoy CVE-2020-8660", func(t *Try, _ string) hello {
		return hello{names: [][]byte{[]byte(t.Token + "." + evilSuffix)}, padding: 14 << 10}
	})
	add("an evil name behind 50 KB of padding", "RFC 7685", func(t *Try, _ string) hello {
		return hello{names: [][]byte{[]byte(t.Token + "." + evilSuffix)}, padding: 50 << 10}
	})
	all = append(all,
		legalName("in capitals", "RFC 4343", func(base string) hello { return sni(strings.ToUpper(base)) }),
		legalName("in capitals and small letters", "RFC 4343", func(base string) hello { return sni(strings.ToUpper(base[:9]) + base[9:]) }),
		legalName("behind 14 KB of padding", "RFC 7685", func(base string) hello { h := sni(base); h.padding = 14 << 10; return h }),
		legalName("behind 50 KB of padding", "RFC 7685", func(base string) hello { h := sni(base); h.padding = 50 << 10; return h }),
		legalName("beside extensions that nobody knows", "RFC 8701", func(base string) hello {
			h := sni(base)
			h.extensions = []uint16{0x0a0a, 0xdada, 0xfafa, 0xffce}
			return h
		}),
	)
	return all
}

func plainName(_ *Try, base string) hello { return sni(base) }

func legalName(name, source string, make func(base string) hello) tactic {
	return tactic{name: "shows the permitted name " + name, source: source, axes: byFamily | byHello, twin: showing(func(_ *Try, base string) hello { return make(base) })}
}

// showing sends a hello made for a permitted name.
func showing(make func(t *Try, base string) hello) play {
	return func(ctx context.Context, t *Try, s shape) error {
		h := make(t, s.name)
		h.kind = s.kind
		b := h.record()
		return t.write(ctx, t.target(ctx, s.name, s.v6, 443), bytes.Clone(b), len(b))
	}
}
