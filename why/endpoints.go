package why

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// forms are the ways in which messages name a destination: the groups are proto, host and port, as far as they are there.
var forms = []*regexp.Regexp{
	regexp.MustCompile(`(?i)(?P<proto>https?)://(?P<host>[a-z0-9][a-z0-9.-]*|\[[0-9a-f:]+\])(?::(?P<port>\d{1,5}))?`),
	regexp.MustCompile(`(?i)\blookup (?:of )?(?P<host>[a-z0-9][a-z0-9.-]*)`),
	regexp.MustCompile(`(?i)dial tcp:? (?P<host>[a-z0-9][a-z0-9.-]*|\[[0-9a-f:]+\]):(?P<port>\d{1,5})`),
	regexp.MustCompile(`(?i)->(?P<host>[0-9.]+|\[[0-9a-f:]+\]):(?P<port>\d{1,5})`),
	regexp.MustCompile(`(?i)(?:connect to|connection to|connected to|connecting to) (?P<host>[a-z0-9][a-z0-9.-]*\.[a-z0-9-]+)(?: \([^)]*\))?(?: port |:)(?P<port>\d{1,5})`),
	regexp.MustCompile(`(?i)(?:resolve host:?|could not resolve|resolving|getaddrinfo \w+|can't find|cannot find|can't resolve|nslookup(?: -\S+)*) '?(?P<host>[a-z0-9][a-z0-9.-]*\.[a-z0-9-]+)`),
	regexp.MustCompile(`(?i)SSL_connect[^\n]* to (?P<host>[a-z0-9.-]+):(?P<port>\d{1,5})`),
	regexp.MustCompile(`(?i)to (?P<host>[a-z0-9-]+(?:\.[a-z0-9-]+)+):(?P<port>\d{1,5})\b`),
	regexp.MustCompile(`(?i)remote name could not be resolved: '(?P<host>[a-z0-9.-]+)'`),
	regexp.MustCompile(`(?i)nc: .*?(?P<host>[a-z0-9-]+(?:\.[a-z0-9-]+)+) port (?P<port>\d{1,5})`),
	regexp.MustCompile(`(?i)valid for .*, not (?P<host>[a-z0-9.-]+\.[a-z]+)`),
}

// imageForm finds the registry of an image; a message that also names where it was asked for is better.
var imageForm = regexp.MustCompile(`(?i)(?:image|reference|pulling|pull) \\?"?(?P<host>[a-z0-9-]+(?:\.[a-z0-9-]+)+)(?::(?P<port>\d{1,5}))?/`)

// maxEndpoints bounds what one line is taken to name.
const maxEndpoints = 8

// endpointsOf finds the destinations that a line names; a port that is not told is 443.
func endpointsOf(line string) []egress.Endpoint {
	found := matches(line, forms)
	if !slices.ContainsFunc(found, named) {
		found = append(matches(strings.ReplaceAll(line, "docker.io/", "registry-1.docker.io/"), []*regexp.Regexp{imageForm}), found...)
	}
	return found[:min(len(found), maxEndpoints)]
}

// named reports whether an endpoint is told by name.
func named(e egress.Endpoint) bool { _, ok := e.Host.(egress.Pattern); return ok }

func matches(line string, forms []*regexp.Regexp) []egress.Endpoint {
	var found []egress.Endpoint
	for _, form := range forms {
		for _, m := range form.FindAllStringSubmatch(line, maxEndpoints) {
			group := func(name string) string {
				if i := form.SubexpIndex(name); i >= 0 {
					return m[i]
				}
				return ""
			}
			e, ok := endpoint(strings.ToLower(group("proto")), group("host"), group("port"))
			if ok && !hasHost(found, e) && len(found) < maxEndpoints {
				found = append(found, e)
			}
		}
	}
	return found
}

func hasHost(es []egress.Endpoint, e egress.Endpoint) bool {
	return slices.ContainsFunc(es, func(o egress.Endpoint) bool { return o.Host == e.Host })
}

func endpoint(proto, host, port string) (egress.Endpoint, bool) {
	host = strings.TrimRight(host, ".-")
	if proto == "" {
		proto = map[string]string{"80": "http"}[port]
	}
	if proto == "" {
		proto = "https"
	}
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[proto]
	}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		proto = "tcp"
		if a.Is4() && a.IsUnspecified() || a.IsLoopback() {
			return egress.Endpoint{}, false
		}
	} else if !strings.Contains(host, ".") {
		return egress.Endpoint{}, false // a word, or a name inside the cluster
	} else if strings.HasSuffix(host, ".svc") || strings.HasSuffix(host, ".local") || strings.HasSuffix(host, ".internal") {
		return egress.Endpoint{}, false // a name inside the cluster
	}
	e, err := egress.ParseEndpoint(proto + "://" + host + ":" + port)
	return e, err == nil
}
