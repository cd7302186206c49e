package check

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"tidegate.io/tidegate/egress"
)

// maxBody is how much of an answer is read: a block page gives itself away at its beginning.
const maxBody = 16 << 10

// answers say what is asked of a host and which statuses its service gives, besides 200 to 399. They are those that
// AKS's own checks on the node accept. Hosts that are not in the list may answer anything a genuine server does.
var answers = []struct {
	pattern, path string
	also          []int
}{
	{"mcr.microsoft.com", "/v2/", nil},
	{"mcr.azure.cn", "/v2/", nil},
	{"gcr.azk8s.cn", "/v2/", nil},
	{"*.data.mcr.microsoft.com", "/", []int{400}},
	{"*.data.mcr.azure.cn", "/", []int{400}},
	{"packages.aks.azure.com", "/acs-mirror/healthz", []int{400}},
	{"acs-mirror.azureedge.net", "/acs-mirror/healthz", []int{400}},
	{"packages.microsoft.com", "/", nil},
	{"login.microsoftonline.com", "/", nil},
	{"login.microsoftonline.us", "/", nil},
	{"login.chinacloudapi.cn", "/", nil},
	{"management.azure.com", "/subscriptions?api-version=2022-12-01", []int{401}}, // 401: it wants a token, which the check has not
	{"management.usgovcloudapi.net", "/subscriptions?api-version=2022-12-01", []int{401}},
	{"management.chinacloudapi.cn", "/subscriptions?api-version=2022-12-01", []int{401}},
	{"snapshot.ubuntu.com", "/ubuntu/", nil},
	{"security.ubuntu.com", "/ubuntu/", nil},
	{"azure.archive.ubuntu.com", "/ubuntu/", nil},
	{"*.*.data.azurecr.io", "/", []int{400, 401, 403, 404}}, // without a blob's signed address it has nothing for anybody
	{"*.*.data.azurecr.cn", "/", []int{400, 401, 403, 404}},
	{"*.*.data.azurecr.us", "/", []int{400, 401, 403, 404}},
	{"*.azurecr.io", "/v2/", []int{401}},
	{"*.azurecr.cn", "/v2/", []int{401}},
	{"*.azurecr.us", "/v2/", []int{401}},
}

// question returns the path to ask a host for and the statuses it may give; strict is false for hosts not in the list.
func question(name egress.Name) (path string, also []int, strict bool) {
	for _, a := range answers {
		if p, err := egress.ParsePattern(a.pattern); err == nil && p.Match(name) {
			return a.path, a.also, true
		}
	}
	return "/", nil, false
}

// probeHTTPS shakes hands as the name, verifies, and asks.
func probeHTTPS(ctx context.Context, h *Host, t Target) error {
	name := t.Name.String()
	c, err := h.shakeHands(ctx, t, hello{name: name, alpn: "http/1.1", verify: h.trusting(name, h.Roots)})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	path, _, _ := question(t.Name)
	a, err := get(c, t, path, nil)
	if err != nil {
		return err
	}
	return judge(t, a)
}

// probeHTTP asks in clear text, directly or through the proxy.
func probeHTTP(ctx context.Context, h *Host, t Target) error {
	proxy, err := h.proxyOf(t)
	if err != nil {
		return err
	}
	var c net.Conn
	if proxy != nil {
		c, err = h.toProxy(ctx, proxy)
	} else {
		c, err = h.connect(ctx, t)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	path, _, _ := question(t.Name)
	a, err := get(c, t, path, proxy)
	if err != nil {
		return err
	}
	if proxy != nil {
		switch a.code {
		case http.StatusProxyAuthRequired:
			return fault(ProxyAuthentication, "the proxy answers %s", a.status)
		case http.StatusForbidden:
			return fault(ProxyDenied, "the proxy answers %s", a.status)
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return fault(ProxyFailed, "the proxy answers %s", a.status)
		}
	}
	return judge(t, a)
}

// An answer is what an HTTP server said.
type answer struct {
	code     int
	status   string // for people
	header   http.Header
	location *url.URL // where a redirection leads; nil without one
	body     []byte   // at most as much as was asked for
}

// get sends one request over c and reads the answer's beginning. With a proxy the target is absolute (RFC 9112 section
// 3.2.2).
func get(c net.Conn, t Target, path string, proxy *url.URL) (answer, error) {
	host := t.Name.String()
	if t.Name.IsZero() {
		host = t.Addr.String()
	}
	scheme := "http"
	if t.Kind != HTTP {
		scheme = "https"
	}
	if standard := map[string]uint16{"http": 80, "https": 443}[scheme]; t.Port != standard {
		host = net.JoinHostPort(host, strconv.Itoa(int(t.Port)))
	}
	req, err := http.NewRequest(http.MethodGet, scheme+"://"+host+path, nil)
	if err != nil {
		return answer{}, fault(Interrupted, "%s", err)
	}
	return send(c, req, proxy != nil, maxBody)
}

// send sends a request, the last over c, and reads at most limit bytes of the answer's body.
func send(c net.Conn, req *http.Request, toProxy bool, limit int64) (answer, error) {
	req.Close = true
	req.Header.Set("User-Agent", "tidegate-check")
	write := req.Write
	if toProxy {
		write = req.WriteProxy
	}
	if err := write(c); err != nil {
		return answer{}, requestFault(err)
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, maxBody), req)
	if err != nil {
		return answer{}, requestFault(err)
	}
	defer func() { _ = resp.Body.Close() }()
	a := answer{code: resp.StatusCode, status: clip(resp.Status), header: resp.Header}
	a.body, _ = io.ReadAll(io.LimitReader(resp.Body, limit)) // what is there of it is enough
	a.location, _ = resp.Location()                          // none is no error
	return a, nil
}

func requestFault(err error) *Fault {
	switch {
	case reset(err):
		return fault(HTTPReset, "reset after the request")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fault(HTTPReset, "closed after the request")
	case timedOut(err):
		return fault(HTTPSilent, "no answer to the request")
	case strings.Contains(err.Error(), "remote error: tls: "):
		return fault(HTTPReset, "ended after the request: %s", plain(err))
	}
	return fault(NotHTTP, "%s", clip(plain(err)))
}

// judge decides whether an answer comes from the service that was asked.
func judge(t Target, a answer) error {
	_, also, strict := question(t.Name)
	s := a.code
	if who := blockPage(t, a); who != "" {
		return fault(HTTPBlocked, "the answer is %s, a page of %s", a.status, who)
	}
	if redirected(t, a) {
		return fault(HTTPRedirected, "the answer is %s to %s", a.status, clip(a.location.String()))
	}
	switch {
	case s >= 200 && s < 400, slices.Contains(also, s):
		return nil
	case s >= 500 && s != http.StatusNetworkAuthenticationRequired && t.Kind != HTTP:
		return fault(ServerError, "the answer is %s", a.status)
	case strict, s >= 500, s == http.StatusProxyAuthRequired, s == http.StatusUnavailableForLegalReasons:
		return fault(HTTPStatus, "the answer is %s", a.status)
	case s == http.StatusForbidden && t.Kind == HTTP:
		return fault(HTTPStatus, "the answer is %s, in clear text, so it may be anyone's", a.status)
	}
	return nil
}

// marks give the block pages of firewalls away: a header or a word of the page, in lower case.
var marks = []struct{ mark, who string }{
	{"action: deny", "Azure Firewall"},
	{"azure firewall", "Azure Firewall"},
	{"x-squid-error", "Squid"},
	{"fortiguard", "FortiGate"},
	{"fortigate", "FortiGate"},
	{"web page blocked", "a FortiGate or a Palo Alto firewall"},
	{"palo alto", "Palo Alto"},
	{"zscaler", "Zscaler"},
	{"check point", "Check Point"},
	{"cisco umbrella", "Cisco Umbrella"},
	{"sophos", "Sophos"},
	{"netskope", "Netskope"},
	{"has been blocked", "a web filter"},
	{"access denied by policy", "a web filter"},
	{"blocked by your", "a web filter"},
}

// azureFirewallDeny is the status of Azure Firewall's own answer to a denied HTTP request.
const azureFirewallDeny = 470

// blockPage returns whose page an answer is, or "". A page that says 200 is suspected in clear text only: within TLS a
// genuine server may well write about firewalls.
func blockPage(t Target, a answer) string {
	switch {
	case a.code == azureFirewallDeny:
		return "Azure Firewall"
	case a.code < 400 && (t.Kind != HTTP || a.code != http.StatusOK):
		return ""
	}
	var head bytes.Buffer
	_ = a.header.Write(&head) // to a buffer
	text := strings.ToLower(head.String() + string(a.body))
	for _, m := range marks {
		if strings.Contains(text, m.mark) {
			return m.who
		}
	}
	return ""
}

// redirected reports whether clear text sends the client to another site, as portals do. Within TLS the server is
// genuine, and may.
func redirected(t Target, a answer) bool {
	if t.Kind != HTTP || a.location == nil || a.code < 300 || a.code >= 400 {
		return false
	}
	name, err := egress.ParseName(a.location.Hostname())
	return err != nil || site(name) != site(t.Name)
}

// site is the last two labels, which is coarse, and enough to tell a service from a portal.
func site(n egress.Name) string {
	labels := strings.Split(n.String(), ".")
	return strings.Join(labels[max(0, len(labels)-2):], ".")
}

// isStatus reports whether body is an object as every API server answers when it does not know who asks.
func isStatus(body []byte) bool {
	var s struct{ Kind, APIVersion string }
	return json.Unmarshal(body, &s) == nil && s.Kind == "Status" && s.APIVersion == "v1"
}
