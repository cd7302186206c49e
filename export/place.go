package export

import (
	"net/netip"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// redirection leads connections to a port of the proxy's machine; 0 is the port that they have.
type redirection struct {
	ports egress.Ports
	to    uint16
}

// place says, in comments, what leads the cluster's traffic to a proxy: without it nothing is judged, and what is not led
// there passes beside it. The indented lines are a file for nft, which the tests load as it stands.
func (j *job) place(p *page, v6 bool, to []redirection) {
	p.line("# This file judges what is led to it, and nothing else: put it on a Linux router that all of the")
	p.line("# cluster's traffic passes (net.ipv4.ip_forward = 1), with these rules of nftables beside it.")
	p.line("# What is not led to it is refused.")
	for _, line := range j.placeRules(v6, to) {
		p.line("%s", strings.TrimRight(placeMark+line, " "))
	}
	p.line("")
}

const placeMark = "#     "

func (j *job) placeRules(v6 bool, to []redirection) []string {
	v4, six := families(j.From)
	clients := []string{""}
	if len(j.From) > 0 {
		clients = clientMatches(v4, six)
	}
	out := []string{
		"table inet tidegate_proxy",
		"delete table inet tidegate_proxy",
		"table inet tidegate_proxy {",
		"  chain led {",
		"    type nat hook prerouting priority dstnat;",
	}
	for _, from := range clients {
		switch {
		case strings.HasPrefix(from, "ip6 ") && !v6:
			continue
		case from == "" && !v6:
			from = "meta nfproto ipv4 "
		}
		for _, r := range to {
			target := "redirect"
			if r.to != 0 {
				target += " to :" + egress.Ports{First: r.to, Last: r.to}.String()
			}
			out = append(out, "    "+from+"tcp dport "+r.ports.String()+" "+target)
		}
	}
	out = append(out, "  }", "  chain beside {", "    type filter hook forward priority filter;")
	for _, from := range clients {
		out = append(out, "    "+from+"meta l4proto tcp reject with tcp reset", "    "+from+"reject with icmpx type admin-prohibited")
	}
	return append(out, "  }", "}")
}

// maxMatched bounds the prefixes on a line, which is a comment in the file of a
// proxy: what is beyond Squid's 2,048 bytes would be configuration.
const maxMatched = 30

// clientMatches are the matches of nft for clients, each with a space behind it.
func clientMatches(v4, v6 []netip.Prefix) []string {
	var out []string
	for ps := range slices.Chunk(outermost(v4), maxMatched) {
		out = append(out, "ip saddr { "+prefixes(ps)+" } ")
	}
	for ps := range slices.Chunk(outermost(v6), maxMatched) {
		out = append(out, "ip6 saddr { "+prefixes(ps)+" } ")
	}
	return out
}

// samePorts are the redirections of listeners that have the ports of their rules.
func samePorts(listeners []bucket) []redirection {
	var out []redirection
	for _, b := range listeners {
		out = append(out, redirection{b.ports, 0})
	}
	return out
}
