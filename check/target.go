package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Kind is what is spoken to a target; each has a [Probe].
type Kind string

// The kinds.
const (
	HTTPS        Kind = "https"
	HTTP         Kind = "http"
	APIServer    Kind = "api-server"
	Konnectivity Kind = "konnectivity"
	DNS          Kind = "dns"
	NTP          Kind = "ntp"
	TCP          Kind = "tcp"
	UDP          Kind = "udp"
	Lookup       Kind = "lookup"   // only DNS is asked
	Registry     Kind = "registry" // a registry of images
	Artefact     Kind = "artefact" // something that a registry has to have
)

// A Target is one thing to try.
type Target struct {
	Kind      Kind            `json:"kind"`
	Name      egress.Name     `json:"name,omitzero"` // zero: by address only
	Addr      netip.Addr      `json:"addr,omitzero"` // invalid: DNS is asked for Name
	Port      uint16          `json:"port"`
	Image     string          `json:"image,omitempty"`    // of an artefact, such as a/b:tag
	Platform  string          `json:"platform,omitempty"` // for which it has to be there, such as linux/amd64:ubuntu 22.04; empty: any
	Rules     []string        `json:"rules,omitempty"`    // that permit it, by id
	Endpoint  egress.Endpoint `json:"endpoint,omitzero"`  // as the first of them writes it
	Need      egress.Need     `json:"need"`
	Why       string          `json:"why,omitempty"`
	Forbidden bool            `json:"forbidden,omitempty"` // it must not be reached
	Private   bool            `json:"private,omitempty"`   // it must have a private address
}

// String returns what is tried, such as "https://mcr.microsoft.com:443".
func (t Target) String() string {
	host := t.Name.String()
	if t.Addr.IsValid() {
		host = t.Addr.String()
		if t.Addr.Is6() {
			host = "[" + host + "]"
		}
	}
	text := fmt.Sprintf("%s://%s:%d", t.Kind, host, t.Port)
	if t.Image != "" {
		text += "/" + t.Image
	}
	if t.Platform != "" {
		text += " for " + t.Platform
	}
	return text
}

// same reports whether both are one question to one place.
func (t Target) same(o Target) bool {
	return t.Kind == o.Kind && t.Name == o.Name && t.Addr == o.Addr && t.Port == o.Port && t.Image == o.Image && t.Platform == o.Platform && t.Forbidden == o.Forbidden
}

// Skipped is an endpoint that was not tried, and why: what cannot be tried is never silently passed over.
type Skipped struct {
	Rule     string          `json:"rule"`
	Endpoint egress.Endpoint `json:"endpoint"`
	Because  string          `json:"because"`
}

// Wanted is what [Targets] is made from.
type Wanted struct {
	Rules     []egress.Rule
	APIServer egress.Name   // zero: not known
	Region    string        // for names below wildcards; empty: not known
	Instances []egress.Name // further names that exist below wildcards
}

// Targets lists what can be tried of the rules, each thing once, in the rules' order.
func Targets(w Wanted) ([]Target, []Skipped) {
	var targets []Target
	var skipped []Skipped
	for _, r := range w.Rules {
		for _, e := range r.To {
			found, because := w.endpoint(e)
			if because != "" {
				skipped = append(skipped, Skipped{r.ID, e, because})
			}
			for _, t := range found {
				t.Rules, t.Endpoint, t.Need, t.Why = []string{r.ID}, e, r.Need, r.Why
				targets = add(targets, t)
			}
		}
	}
	return targets, skipped
}

// add appends t, or its rules where it is among ts already, with the greater need.
func add(ts []Target, t Target) []Target {
	i := slices.IndexFunc(ts, t.same)
	if i < 0 {
		return append(ts, t)
	}
	ts[i].Rules = append(slices.Clip(ts[i].Rules), t.Rules...)
	ts[i].Need = min(ts[i].Need, t.Need)
	return ts
}

func (w *Wanted) endpoint(e egress.Endpoint) ([]Target, string) {
	switch h := e.Host.(type) {
	case egress.Pattern:
		if because := retired[h.String()]; because != "" {
			return nil, because
		}
		names := w.names(h)
		if len(names) == 0 {
			return nil, "no name below the wildcard is known to exist; give one with --instance"
		}
		var ts []Target
		for _, n := range names {
			ts = append(ts, w.named(e, n)...)
		}
		return ts, ""
	case egress.Net:
		return w.network(e, h)
	case egress.Tag:
		if w.APIServer.IsZero() {
			return nil, "a service tag has no address that is known to answer, and the API server's name is not known"
		}
		return []Target{{Kind: transport(e.Proto), Name: w.APIServer, Port: e.Ports.First}}, ""
	}
	return nil, "it has no destination"
}

// named are the targets for one name of an endpoint. On the API server's port there are two listeners, told apart by ALPN.
func (w *Wanted) named(e egress.Endpoint, n egress.Name) []Target {
	t := Target{Kind: HTTPS, Name: n, Port: e.Ports.First}
	switch {
	case slices.Contains(aliases, n.String()):
		t.Kind = Lookup
	case e.Proto == egress.HTTPS && n == w.APIServer:
		return []Target{{Kind: APIServer, Name: n, Port: t.Port}, {Kind: Konnectivity, Name: n, Port: t.Port}}
	case e.Proto == egress.HTTP:
		t.Kind = HTTP
	case e.Proto != egress.HTTPS:
		t.Kind = datagramKind(e)
	}
	return []Target{t}
}

func (w *Wanted) network(e egress.Endpoint, n egress.Net) ([]Target, string) {
	kind := datagramKind(e)
	if !n.IsSingleIP() {
		if kind == NTP && n.Bits() == 0 && n.Addr().Is4() {
			return []Target{{Kind: NTP, Name: egress.MustParseName("ntp.ubuntu.com"), Port: 123}}, ""
		}
		return nil, "a range of addresses, none of which is known to answer"
	}
	t := Target{Kind: kind, Addr: n.Addr(), Port: e.Ports.First}
	if kind == TCP && t.Port == 443 && !w.APIServer.IsZero() {
		t.Kind, t.Name = APIServer, w.APIServer
	}
	return []Target{t}, ""
}

func transport(p egress.Proto) Kind {
	if p == egress.UDP {
		return UDP
	}
	return TCP
}

// datagramKind tells by the port what is spoken on an endpoint that is judged by address.
func datagramKind(e egress.Endpoint) Kind {
	switch {
	case e.Ports.First == 53:
		return DNS
	case e.Proto == egress.UDP && e.Ports.First == 123:
		return NTP
	}
	return transport(e.Proto)
}

// retired are hosts that the article still lists and that are gone; to fail there is no news.
var retired = map[string]string{
	"acs-mirror.azureedge.net": "Microsoft retired this host on 2025-05-31; packages.aks.azure.com has taken its place",
}

// aliases are ends of CNAME chains, which DNS filters see. No client shows them in TLS, so no certificate need be for them.
var aliases = []string{"mcr-0001.mcr-msedge.net"}

// known are names that exist below wildcards of the catalogue, whoever asks; {region} is the cluster's.
var known = []string{
	"eastus.data.mcr.microsoft.com", // the host that the nodes' own checker asks
	"{region}.monitoring.azure.com",
	"{region}.handler.control.monitor.azure.com",
	"{region}.dp.kubernetesconfiguration.azure.com",
	"eastus-8.in.applicationinsights.azure.com",
	"geo.prod.do.dsp.mp.microsoft.com",
	"tlu.dl.delivery.mp.microsoft.com",
}

// names are those to try of a pattern: the pattern's own, or what is known to exist below it.
func (w *Wanted) names(p egress.Pattern) []egress.Name {
	if n, ok := p.Exact(); ok {
		return []egress.Name{n}
	}
	candidates := slices.Clone(w.Instances)
	if !w.APIServer.IsZero() {
		candidates = append(candidates, w.APIServer)
	}
	for _, s := range known {
		s = strings.ReplaceAll(s, "{region}", w.Region)
		if n, err := egress.ParseName(s); err == nil {
			candidates = append(candidates, n)
		}
	}
	var names []egress.Name
	for _, n := range candidates {
		if p.Match(n) && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// Forbidden are targets that no cluster needs and that every default-deny firewall must block: by name, by name over
// plain HTTP, by address without a name, and by ways around its DNS. What a rule permits is left out.
func Forbidden(rules []egress.Rule) []Target {
	var out []Target
	for _, s := range []string{
		"https://www.example.com:443", "http://www.example.com:80", "https://gist.github.com:443",
		"tcp://8.8.8.8:443", "tcp://1.1.1.1:853", "udp://1.1.1.1:443",
	} {
		e := egress.MustParseEndpoint(s)
		if !permitted(rules, e) {
			ts, _ := (&Wanted{}).endpoint(e)
			out = append(out, ts...)
		}
	}
	for i := range out {
		out[i].Forbidden, out[i].Why = true, "No rule permits it."
	}
	return out
}

func permitted(rules []egress.Rule, e egress.Endpoint) bool {
	for _, r := range rules {
		for _, to := range r.To {
			if to.Proto.Transport() == e.Proto.Transport() && to.Ports.Has(e.Ports.First) && holds(to.Host, e.Host) {
				return true
			}
		}
	}
	return false
}

func holds(h, one egress.Host) bool {
	switch h := h.(type) {
	case egress.Pattern:
		p, ok := one.(egress.Pattern)
		if !ok {
			return false
		}
		n, exact := p.Exact()
		return exact && h.Match(n)
	case egress.Net:
		n, ok := one.(egress.Net)
		return !ok || h.Contains(n.Addr()) // a name may lead to an address of the range
	}
	return true // what a tag holds is not known here
}
