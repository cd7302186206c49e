package check

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

// A network is a machine's whole world: a DNS server and registries on the loopback, reached by the addresses that DNS
// gives for them.
type network struct {
	t     *testing.T
	mu    sync.Mutex
	names map[string]string         // a name's address; none: the name does not exist
	at    map[netip.AddrPort]string // where an address really is
	roots *x509.CertPool
	host  Host
}

func newNetwork(t *testing.T) *network {
	n := &network{t: t, names: map[string]string{}, at: map[netip.AddrPort]string{}, roots: x509.NewCertPool()}
	server := netip.MustParseAddrPort("10.0.0.10:53")
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(n.answer)}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
	n.at[server] = pc.LocalAddr().String()
	n.host = Host{Servers: []netip.AddrPort{server}, Roots: n.roots, Patience: 2 * time.Second, Dial: func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
		where, ok := n.at[to]
		if !ok {
			<-ctx.Done() // dropped by a firewall
			return nil, ctx.Err()
		}
		var d net.Dialer
		return d.DialContext(ctx, network, where)
	}}
	return n
}

func (n *network) answer(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	name := strings.TrimSuffix(strings.ToLower(q.Question[0].Name), ".")
	n.mu.Lock()
	addr, ok := n.names[name]
	n.mu.Unlock()
	if !ok {
		m.Rcode = dns.RcodeNameError
	} else if q.Question[0].Qtype == dns.TypeA {
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(addr)}}
	}
	_ = w.WriteMsg(m)
}

// lead has DNS say where a name is; "" is nowhere.
func (n *network) lead(name, addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.names[name] = addr; addr == "" {
		delete(n.names, name)
	}
}

// serve has a TLS server at an address, with a certificate for example.com, as httptest has.
func (n *network) serve(name, addr string, h http.HandlerFunc) {
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
	s.StartTLS()
	n.t.Cleanup(s.Close)
	n.roots.AddCert(s.Certificate())
	n.lead(name, addr)
	n.at[netip.AddrPortFrom(netip.MustParseAddr(addr), 443)] = s.Listener.Addr().String()
}

const (
	registryHost = "acr.example.com" // of httptest's certificate: *.example.com
	pause        = "aks-managed-repository/oss/v2/kubernetes/pause:3.6"
	kubelet      = "aks-managed-repository/aks/packages/kubernetes/kubelet:v1.34.2"
	ubuntu2204   = `{"manifests":[{"platform":{"os":"linux","architecture":"amd64","os.version":"ubuntu 22.04"}}]}`
)

// manifests answers as a registry with one artefact does.
func manifests(body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
			w.WriteHeader(http.StatusOK)
		case !strings.Contains(r.Header.Get("Accept"), "application/vnd.oci.image.index.v1+json"):
			w.WriteHeader(http.StatusNotAcceptable)
		case r.URL.Path == "/v2/aks-managed-repository/oss/v2/kubernetes/pause/manifests/3.6", r.URL.Path == "/v2/aks-managed-repository/aks/packages/kubernetes/kubelet/manifests/v1.34.2":
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			w.Header().Set("Docker-Content-Digest", fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(body))))
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			fmt.Fprint(w, body)
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
		}
	}
}

func status(code int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

// signed wants a token, which it gives to user and password, and to strangers if they are empty.
func signed(user, password, realm string, then http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/oauth2/token" {
			u, p, _ := r.BasicAuth()
			if u != user || p != password || r.URL.Query().Get("service") != registryHost {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprint(w, `{"access_token":"the-token"}`)
			return
		}
		if r.Header.Get("Authorization") != "Bearer the-token" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="`+registryHost+`",scope="repository:a/b:pull,metadata_read"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		then(w, r)
	}
}

// TestRegistry plants one fault at a time between a node and the registry that it boots from.
func TestRegistry(t *testing.T) {
	const realm = "https://" + registryHost + "/oauth2/token"
	who := url.UserPassword("me", "secret")
	for _, tt := range []struct {
		name     string
		handler  http.HandlerFunc
		kind     Kind
		image    string
		platform string
		with     *url.Userinfo
		want     Cause
	}{
		{"a registry answers /v2/", manifests("{}"), Registry, "", "", nil, Reached},
		{"a web server answers /v2/ with a page", status(404, "<html>"), Registry, "", "", nil, NotRegistry},
		{"an artefact is there", manifests("{}"), Artefact, pause, "", nil, Reached},
		{"an artefact is there for the system", manifests(ubuntu2204), Artefact, kubelet, "linux/amd64:ubuntu 22.04", nil, Reached},
		{"an artefact is there for any version of the system", manifests(ubuntu2204), Artefact, kubelet, "linux/amd64", nil, Reached},
		{"an artefact is there for another version of the system", manifests(ubuntu2204), Artefact, kubelet, "linux/amd64:ubuntu 24.04", nil, NoPlatform},
		{"an artefact is there for another machine", manifests(ubuntu2204), Artefact, kubelet, "linux/arm64:ubuntu 22.04", nil, NoPlatform},
		{"the registry lacks it", manifests("{}"), Artefact, "oss/v2/kubernetes/pause:3.6", "", nil, NoArtefact},
		{"the bytes are not the digest's", manifests(ubuntu2204, "Docker-Content-Digest", "sha256:00"), Artefact, kubelet, "linux/amd64", nil, WrongDigest},
		{"a page in the place of a manifest", status(200, "<html>", "Content-Type", "text/html"), Artefact, pause, "", nil, NotRegistry},
		{"an index that is no JSON", manifests("<html>"), Artefact, kubelet, "linux/amd64", nil, NotRegistry},
		{"strangers get a token", signed("", "", realm, manifests("{}")), Artefact, pause, "", nil, Reached},
		{"strangers get none", signed("me", "secret", realm, manifests("{}")), Artefact, pause, "", nil, WantsSignIn},
		{"those who are known get one", signed("me", "secret", realm, manifests("{}")), Artefact, pause, "", who, Reached},
		{"the password is another", signed("me", "other", realm, manifests("{}")), Artefact, pause, "", who, SignInRefused},
		{"a token that does not help", signed("me", "secret", realm, status(403, `{"errors":[{"code":"DENIED","message":"client with IP is not allowed"}]}`)), Artefact, pause, "", who, PullDenied},
		{"it sends to sign in elsewhere", signed("me", "secret", "https://evil.example.com/oauth2/token", manifests("{}")), Artefact, pause, "", who, WantsSignIn},
		{"it sends to sign in in clear text", signed("me", "secret", "http://"+registryHost+"/oauth2/token", manifests("{}")), Artefact, pause, "", who, WantsSignIn},
		{"it wants a password and there is none", status(401, "", "WWW-Authenticate", `Basic realm="x"`), Artefact, pause, "", nil, WantsSignIn},
		{"a challenge that is none of a registry's", status(401, "", "WWW-Authenticate", "Negotiate"), Registry, "", "", nil, NotRegistry},
		{"the registry is unwell", status(503, ""), Artefact, pause, "", nil, ServerError},
		{"a firewall's page", status(403, "this page has been blocked"), Artefact, pause, "", nil, HTTPBlocked},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNetwork(t)
			n.serve(registryHost, "10.9.0.4", tt.handler)
			n.serve("evil.example.com", "10.9.0.66", func(_ http.ResponseWriter, r *http.Request) {
				t.Errorf("another host was asked %s, with the credentials %q", r.URL, r.Header.Get("Authorization"))
			})
			n.host.Credentials = tt.with
			target := Target{Kind: tt.kind, Name: egress.MustParseName(registryHost), Port: 443, Image: tt.image, Platform: tt.platform, Private: true}
			got := n.host.Run(t.Context(), []Target{target}, nil)[0]
			if got.Cause != tt.want {
				t.Errorf("%s (%s), want %s", got.Cause, got.Detail, tt.want)
			}
			if strings.Contains(got.Detail, "secret") {
				t.Errorf("the password is in %q", got.Detail)
			}
		})
	}
}

// TestRegistryNetwork: what is wrong before the registry is asked.
func TestRegistryNetwork(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*network)
		want  Cause
	}{
		{"the zone is not linked: the name leads to a public address", func(n *network) { n.lead(registryHost, "20.60.1.1") }, PublicAddress},
		{"the zone lacks the record", func(n *network) { n.lead(registryHost, "") }, NoSuchName},
		{"a network security group drops the way to the endpoint", func(n *network) { n.lead(registryHost, "10.9.0.5") }, TCPSilent},
		{"the record leads to somebody else's server", func(n *network) {
			n.host.Roots = x509.NewCertPool()
		}, SelfSigned},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNetwork(t)
			n.host.Patience = 300 * time.Millisecond
			n.serve(registryHost, "10.9.0.4", manifests("{}"))
			tt.spoil(n)
			target := Target{Kind: Artefact, Name: egress.MustParseName(registryHost), Port: 443, Image: pause, Private: true}
			if got := n.host.Run(t.Context(), []Target{target}, nil)[0]; got.Cause != tt.want {
				t.Errorf("%s (%s), want %s", got.Cause, got.Detail, tt.want)
			}
		})
	}
}
