// Package exporttest holds policies that a target of export may choke on: more of
// everything than its lists hold, names that DNS takes and it may not, and texts
// that somebody else wrote. It is for tests.
package exporttest

import (
	"fmt"
	"net/netip"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Hard returns the rules of clusters, by the names of the clusters, which are
// part of it.
func Hard() map[string][]egress.Rule {
	return map[string][]egress.Rule{
		"many":                          many(),
		"odd names":                     oddNames(),
		"empty":                         nil,
		"a\nname: of\r\ntwo\u2028lines": {rule("one/rule", "One.", "https://one.example.com:443", "tcp://20.0.0.1:443")},
		"-Ünïcode/Cluster.Name_" + strings.Repeat("x", 200) + "-": oddTexts(),
	}
}

// Clients are more than a line of some targets holds.
func Clients() []netip.Prefix {
	var out []netip.Prefix
	for i := range 100 {
		out = append(out,
			netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i), 128}), 26),
			netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 1: 0xff, 5: byte(i), 6: 0xff, 7: 0xff, 8: 0xff, 9: 0xff, 10: 0xff, 11: 0xff, 12: 0xff, 13: 0xff, 14: 0xff, 15: 0xff}), 128))
	}
	return out
}

func rule(id, why string, to ...string) egress.Rule {
	r := egress.Rule{ID: id, Why: why}
	for _, s := range to {
		r.To = append(r.To, egress.MustParseEndpoint(s))
	}
	return r
}

// many has lists longer than those of some targets, and is not larger than what
// kubectl applies at once.
func many() []egress.Rule {
	var out []egress.Rule
	for i := range 80 {
		n := 2
		if i%8 == 0 {
			n = 30
		}
		var to []string
		for k := range n {
			for _, s := range []string{
				"https://n%d.r%d.example.com:443", "https://*.w%d.r%d.example.com:443", "http://h%d.r%d.example.com:80", "tcp://t%d.r%d.example.com:5432",
			} {
				to = append(to, fmt.Sprintf(s, k, i))
			}
			to = append(to, fmt.Sprintf("tcp://20.%d.%d.0/24:443", i, k), fmt.Sprintf("udp://[2603:%x:%x::/48]:123", i, k))
		}
		r := rule(fmt.Sprintf("many/%d", i), "One of many.", to...)
		if i == 0 {
			for k := range 40 {
				r.From = append(r.From, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(k), 0, 0}), 16))
			}
		}
		out = append(out, r)
	}
	return out
}

// oddNames are all that DNS and an egress.Name take, and not every target.
func oddNames() []egress.Rule {
	label := strings.Repeat("a", 63)
	longest := strings.Repeat(label+".", 3) + strings.Repeat("b", 61)
	return []egress.Rule{
		rule("odd/underscore", "A label of a service.", "https://_service._tcp.example.com:443", "https://a_b.example.com:443", "tcp://a_.example.com:22"),
		rule("odd/hyphens", "Hyphens at the edges of labels.", "https://-a.example.com:443", "https://a-.example.com:443", "tcp://a--b.example.com:22"),
		rule("odd/idn", "Names in other scripts.", "https://xn--e1afmkfd.xn--p1ai:443", "tcp://xn--e1afmkfd.xn--p1ai:22"),
		rule("odd/single", "A name of one label.", "https://registry:443", "tcp://registry:22"),
		rule("odd/digits", "Labels of digits.", "https://1.2.3.example:443", "https://*.4.example.com:443", "tcp://5.example:22"),
		rule("odd/long", "The longest names.", "https://"+label+".example.com:443", "https://"+longest+":443", "https://*."+longest[2:]+":443", "tcp://"+longest+":22"),
		rule("odd/ports", "The last ports.", "https://ports.example.com:65535", "tcp://20.0.0.1:65535", "udp://20.0.0.1:1-65535", "http://ports.example.com:64000"),
		rule("odd/addresses", "Addresses at the edges.", "tcp://255.255.255.255:1", "tcp://0.0.0.0:1", "tcp://[::1]:1", "tcp://128.0.0.0/1:1", "tcp://[8000::/1]:1"),
	}
}

// oddTexts are ids and reasons that somebody else wrote.
func oddTexts() []egress.Rule {
	var out []egress.Rule
	whys := []string{
		"", "[resourceGroup().location]", strings.Repeat("On and on. ", 1000), "\x00\x1b[31m\xff", `ends in a backslash \`, `# */ --> ''' """ EOF`, "\t\ttabs: {a: b}", `${file("x")} %{for x in y}`,
		"\x7f\u0080\u009b\ufeff\uffff\U0001F600 \u202eright to left",
	}
	for i, id := range []string{
		"a/b", "a-b", "a b", "A/B", "A-B", "a_b", "a.b", "1", "-", "/", "ключ", strings.Repeat("long", 100), strings.Repeat("long", 100) + "er", "[concat('x')]", "=1+1", "${x}",
		`"`, "'", `\`, "#", "//", "*/", "{{", "%{", "a: b", "- a", "a\nb", "tidegate", "default", "null", "true", "~",
	} {
		out = append(out, rule(id, whys[i%len(whys)],
			fmt.Sprintf("https://t%d.example.com:443", i), fmt.Sprintf("https://*.t%d.example.com:443", i), fmt.Sprintf("tcp://20.0.%d.0/24:443", i), fmt.Sprintf("udp://u%d.example.com:123", i)))
	}
	return out
}
