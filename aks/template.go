package aks

import (
	"fmt"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Template is an endpoint with placeholders to be filled from the facts:
//
//	https://{region}.dp.kubernetesconfiguration.azure.com:443
//	https://{apiserver|*.hcp.{location}.azmk8s.io}:443
//
// What stands behind the bar is used where the facts do not fill the
// placeholder. A placeholder with several values makes several endpoints.
type Template struct{ s string }

// placeholders are the names that may stand in braces, with what fills them.
// Where the article has its own spelling for one thing in different tables,
// each is kept, so that its text can be given to the letter.
var placeholders = []struct{ name, filled, stated string }{
	{"location", "the region", "<location>"},
	{"region", "the region", "<region>"},
	{"cluster-region-name", "the region", "<cluster-region-name>"},
	{"Region", "the region, as service tags spell it", "<Region>"},
	{"RegionCIDRs", "nothing: the service tag is written out instead", "Regional CIDRs - RegionCIDRs"},
	{"apiserver", "the API server's name", ""},
	{"APIServerPublicIP", "the API server's addresses", "APIServerPublicIP"},
	{"CustomDNSIP", "the DNS servers' addresses", "CustomDNSIP"},
	{"keyvault", "the names of your key vaults", ""},
	{"any", "every address", "*"},
}

// maxFilled bounds how many endpoints one template may become: as many as a
// rule with the longest sensible list of DNS servers or vaults.
const maxFilled = 1000

// UnfilledError says that a rule is needed and a fact for it is missing.
type UnfilledError struct{ Rule, Placeholder string }

func (e *UnfilledError) Error() string {
	what := "a fact"
	for _, p := range placeholders {
		if p.name == e.Placeholder {
			what = p.filled
		}
	}
	return fmt.Sprintf("rule %s: %s must be known for {%s}", e.Rule, what, e.Placeholder)
}

// UnmarshalText checks the placeholders, and that what they leave is an endpoint.
func (t *Template) UnmarshalText(b []byte) error {
	*t = Template{string(b)}
	names := map[string]string{}
	for _, p := range placeholders {
		names[p.name] = "x"
	}
	for _, addresses := range []string{"any", "RegionCIDRs", "APIServerPublicIP", "CustomDNSIP"} {
		names[addresses] = "192.0.2.1"
	}
	_, err := t.fill(func(name string) ([]string, bool) { v, ok := names[name]; return []string{v}, ok })
	return err
}

// String returns the text with its placeholders.
func (t Template) String() string { return t.s }

// fill writes the endpoints, with values for each placeholder. A nil slice is
// "not known"; false is "there is no such placeholder".
func (t Template) fill(values func(name string) ([]string, bool)) ([]egress.Endpoint, error) {
	texts := []string{t.s}
	for i := 0; i < len(texts); {
		before, name, fallback, after, err := cutPlaceholder(texts[i])
		if err != nil {
			return nil, fmt.Errorf("template %q: %w", t.s, err)
		}
		if name == "" {
			i++
			continue
		}
		vs, known := values(name)
		switch {
		case !known:
			return nil, fmt.Errorf("template %q: no placeholder is called %q", t.s, name)
		case len(vs) == 0 && fallback == "":
			return nil, &UnfilledError{Placeholder: name}
		case len(vs) == 0:
			vs = []string{fallback}
		}
		filled := make([]string, len(vs))
		for j, v := range vs {
			filled[j] = before + v + after
		}
		if len(texts)+len(filled) > maxFilled {
			return nil, fmt.Errorf("template %q: more than %d endpoints", t.s, maxFilled)
		}
		texts = slices.Replace(texts, i, i+1, filled...)
	}
	to := make([]egress.Endpoint, len(texts))
	for i, s := range texts {
		e, err := egress.ParseEndpoint(s)
		if err != nil {
			return nil, err
		}
		to[i] = e
	}
	return to, nil
}

// cutPlaceholder takes the first placeholder out of s; its name is empty when
// there is none.
func cutPlaceholder(s string) (before, name, fallback, after string, err error) {
	open := strings.IndexByte(s, '{')
	if open < 0 {
		if strings.IndexByte(s, '}') >= 0 {
			err = fmt.Errorf("a closing brace without an opening one")
		}
		return s, "", "", "", err
	}
	depth := 0
	for i := open; i < len(s); i++ {
		switch s[i] {
		case '{':
			depth++
		case '}':
			depth--
		}
		if depth == 0 {
			name, fallback, _ = strings.Cut(s[open+1:i], "|")
			if name == "" {
				err = fmt.Errorf("empty braces")
			}
			return s[:open], name, fallback, s[i+1:], err
		}
	}
	return s, "", "", "", fmt.Errorf("no closing brace")
}

// Text is the endpoint for people: placeholders as the article writes them.
func (t Template) Text() string {
	s := t.s
	for {
		before, name, fallback, after, err := cutPlaceholder(s)
		if err != nil || name == "" {
			break
		}
		word := fallback
		for _, p := range placeholders {
			if p.name == name && fallback == "" {
				word = p.stated
			}
		}
		s = before + word + after
	}
	return s
}

// stated is how the article writes the destination: names stand alone, and
// addresses with their port.
func (t Template) stated() string {
	_, s, _ := strings.Cut(t.Text(), "://")
	host := s[:strings.LastIndexByte(s, ':')]
	if tag, ok := strings.CutPrefix(host, "@"); ok {
		host = "ServiceTag - " + tag
	}
	if t.kind() == "network" {
		return host + ":" + t.ports()
	}
	return host
}

// proto is the protocol's word as the article writes it.
func (t Template) proto() string { return strings.ToUpper(t.s[:strings.IndexByte(t.s, ':')]) }

func (t Template) ports() string { return t.s[strings.LastIndexByte(t.s, ':')+1:] }

// kind is network for rules by address and fqdn for rules by name.
func (t Template) kind() string {
	if p := t.proto(); p == "TCP" || p == "UDP" {
		return "network"
	}
	return "fqdn"
}
