package check

import (
	"errors"
	"fmt"
	"strconv"
)

// Cause is how a probe ended: a closed list of words that can be counted. The zero Cause is none.
type Cause uint8

// The causes, in the order of the stages at which they are found.
const (
	Reached Cause = iota + 1
	Open
	NothingReached
	Interrupted

	DNSSilent
	DNSRefused
	DNSFailed
	NoSuchName
	NoAddress
	Sinkhole
	PublicAddress
	DNSNoTCP

	ProxyUnreachable
	ProxyAuthentication
	ProxyDenied
	ProxyFailed

	TCPSilent
	TCPRefused
	Unreachable
	Mute
	Accepted

	TLSReset
	TLSClosed
	TLSSilent
	LargeHello
	NotTLS
	TLSAlert
	Intercepted
	SelfSigned
	WrongCertificate
	WrongServer
	CertificateExpired
	CertificateNotYetValid

	OtherAPIServer
	Unverified
	NotAPIServer
	ALPNLost
	ALPNBlocked

	HTTPReset
	HTTPSilent
	NotHTTP
	HTTPStatus
	HTTPBlocked
	HTTPRedirected
	ServerError

	NotRegistry
	WantsSignIn
	SignInRefused
	PullDenied
	NoArtefact
	NoPlatform
	WrongDigest

	UDPSilent
	UDPRefused
	NotTime

	numCauses
)

// causes holds each cause's word, the stage it belongs to, whether it proves that a forbidden destination is blocked,
// whether it leaves a wanted one unproven rather than failed, and what is likely behind it.
var causes = [numCauses]struct {
	word, stage string
	blocks      bool
	unproven    bool
	likely      string
}{
	Reached:        {word: "reached", likely: "It answered as it should."},
	Open:           {word: "open", likely: "It must be blocked, and it answers: a rule is wider than it should be, or the traffic goes around the firewall; look at the route table and at node public addresses."},
	NothingReached: {word: "nothing-reached", unproven: true, likely: "Nothing that is wanted could be reached either, so that this is not reached proves nothing."},
	Interrupted:    {word: "interrupted", unproven: true, likely: "The check was ended before this was tried to the end."},

	DNSSilent:     {"dns-silent", "dns", true, false, "The DNS server does not answer: port 53 is blocked on the way to it, or the VNet names a server that is gone."},
	DNSRefused:    {"dns-refused", "dns", true, false, "The DNS server refuses the name: a filtering DNS has no rule for it. Add the rule, or list the zone under dns.also."},
	DNSFailed:     {"dns-failed", "dns", false, false, "The DNS server cannot get an answer itself (SERVFAIL): its own way to its upstream is blocked or broken."},
	NoSuchName:    {"no-such-name", "dns", true, false, "DNS says that the name does not exist: a filtering DNS, a private zone that hides the public one and lacks this record, or a spelling mistake."},
	NoAddress:     {"no-address", "dns", true, false, "DNS knows the name but gives no address: a private zone without the record, or a filter that empties answers."},
	Sinkhole:      {"sinkhole", "dns", true, false, "DNS leads the name to nowhere (0.0.0.0, loopback): a blocking DNS has it on a list."},
	PublicAddress: {"public-address", "dns", false, false, "The name must lead to a private address and leads to a public one: the private DNS zone is not linked to this network, or the DNS server does not ask Azure's."},
	DNSNoTCP:      {"dns-no-tcp", "dns", false, false, "DNS answers over UDP and not over TCP, so long answers fail: allow TCP 53 too."},

	ProxyUnreachable:    {"proxy-unreachable", "proxy", false, false, "The HTTP proxy cannot be reached: its address is wrong, or no rule permits it."},
	ProxyAuthentication: {"proxy-authentication", "proxy", true, false, "The proxy wants credentials (407); nodes have none, so it must let the cluster's addresses through without."},
	ProxyDenied:         {"proxy-denied", "proxy", true, false, "The proxy refuses the destination: it lacks the rule."},
	ProxyFailed:         {"proxy-failed", "proxy", false, false, "The proxy accepts the destination and cannot reach it: its own way out is blocked, or its DNS does not know the name."},

	TCPSilent:   {"tcp-silent", "tcp", true, false, "Nothing answers the SYN: a firewall drops it, a route leads nowhere, or answers come back another way (asymmetric routing)."},
	TCPRefused:  {"tcp-refused", "tcp", true, false, "The connection is refused with a reset: a firewall rejects it, or nothing listens there."},
	Unreachable: {"unreachable", "tcp", true, false, "An ICMP error says that there is no way: a firewall rejects it, or the route table has no route."},
	Mute:        {"mute", "tcp", false, false, "The connection is accepted and the server, which speaks first, says nothing: a middlebox accepts connections on its behalf."},
	Accepted:    {"accepted", "tcp", false, true, "The connection is accepted, which proves nothing: a middlebox may have done that. What is spoken there is not known."},

	TLSReset:         {"tls-reset", "tls", true, false, "Connected, and reset after the ClientHello: a firewall judges by name (SNI) and has no rule for it."},
	TLSClosed:        {"tls-closed", "tls", true, false, "Connected, and closed after the ClientHello: a firewall or proxy judges by name (SNI) and has no rule for it."},
	TLSSilent:        {"tls-silent", "tls", true, false, "Connected, and silence after the ClientHello: a firewall drops by name (SNI), or packets of full size do not pass (MTU)."},
	LargeHello:       {"large-hello", "tls", false, false, "A small ClientHello is answered and a post-quantum one, which takes two packets, is not: a middlebox cannot put it together; update it, or look at the MTU."},
	NotTLS:           {"not-tls", "tls", true, false, "The answer to the ClientHello is not TLS: a middlebox answers in clear text, with a block page or another service."},
	TLSAlert:         {"tls-alert", "tls", false, false, "The other side ended the handshake with an alert: a middlebox that terminates TLS, or one that allows too few versions or ciphers."},
	Intercepted:      {"intercepted", "tls", false, false, "The certificate is for the right name and made by an authority that is not trusted: a middlebox intercepts TLS. Exempt this name from TLS inspection."},
	SelfSigned:       {"self-signed", "tls", false, false, "The certificate is for the right name and signed by itself: somebody else answers in the server's place."},
	WrongCertificate: {"wrong-certificate", "tls", false, false, "The certificate is genuine and for another name: DNS leads to the wrong server, or a proxy sends the connection elsewhere."},
	WrongServer:      {"wrong-server", "tls", false, false, "The certificate is neither for this name nor by a trusted authority: a firewall's or portal's own page answers."},
	CertificateExpired: {
		"certificate-expired", "tls", false, false, "The certificate is no longer valid: this machine's clock is ahead (is NTP blocked?), or a middlebox's certificate has run out."},
	CertificateNotYetValid: {
		"certificate-not-yet-valid", "tls", false, false, "The certificate is not valid yet: this machine's clock is behind (is NTP blocked?)."},

	OtherAPIServer: {"other-api-server", "api-server", false, false, "The API server is presented by somebody else: its certificate is not signed by the cluster's own authority. TLS inspection must exempt this name; Konnectivity cannot work through it."},
	Unverified:     {"unverified", "api-server", false, true, "It looks like an API server of AKS, and without the cluster's authority that cannot be proven: give --ca, such as /etc/kubernetes/certs/ca.crt on a node."},
	NotAPIServer:   {"not-api-server", "api-server", false, false, "Something answers at the API server's name that is not an API server: DNS or a proxy leads elsewhere."},
	ALPNLost:       {"alpn-lost", "api-server", false, false, "The handshake succeeds and the ALPN konnectivity is not chosen: a middlebox rewrites or removes it. kubectl logs, exec and webhooks fail; let the ClientHello pass untouched."},
	ALPNBlocked:    {"alpn-blocked", "api-server", false, false, "With the ALPN konnectivity the handshake fails, and without it succeeds: a firewall has a list of permitted ALPNs, or takes it for an unknown application. Permit any ALPN to the API server."},

	HTTPReset:      {"http-reset", "http", true, false, "The connection is reset or closed after the request: a firewall judges by host or path and has no rule for it."},
	HTTPSilent:     {"http-silent", "http", false, false, "No answer to the request: a middlebox accepted the connection and does not pass it on, or the server is overloaded."},
	NotHTTP:        {"not-http", "http", false, false, "The answer is not HTTP: another service listens there."},
	HTTPStatus:     {"http-status", "http", false, false, "The status is none that the service gives to this question: somebody else answers, such as a firewall or proxy."},
	HTTPBlocked:    {"http-blocked", "http", true, false, "The answer is a firewall's block page: it lacks the rule."},
	HTTPRedirected: {"http-redirected", "http", true, false, "The answer leads to another site: a portal or a block page of a firewall."},
	ServerError:    {"server-error", "http", false, true, "The genuine server answers that it is unwell: the network is open, and the service has a fault of its own. Try again."},

	NotRegistry:   {"not-registry", "registry", false, false, "Something answers at the registry's name that is no registry: DNS or a proxy leads elsewhere."},
	WantsSignIn:   {"wants-sign-in", "registry", false, true, "The registry answers and wants to know who asks. Nodes sign in as the kubelet's identity, which has to have AcrPull; give --credentials to try as somebody who has."},
	SignInRefused: {"sign-in-refused", "registry", false, false, "The registry refuses the credentials: they have run out, or their identity is not known to it."},
	PullDenied:    {"pull-denied", "registry", false, false, "The registry refuses the pull: the identity lacks AcrPull on it, or the request came in by its public name, which is closed; look at where the name leads."},
	NoArtefact:    {"no-artefact", "registry", false, false, "The registry answers and has no such artefact, nor can it fetch it: the cache rule is missing or is not from mcr.microsoft.com/* to aks-managed-repository/*, or a mirror without a connection was not preloaded with it. Opening Microsoft's registry to the nodes would not help: they do not ask there."},
	NoPlatform:    {"no-platform", "registry", false, false, "The artefact is there, and not for the nodes' system: it was copied without its index, or preloaded for other platforms."},
	WrongDigest:   {"wrong-digest", "registry", false, false, "What comes is not what its digest says: a middlebox or a broken store changes it."},

	UDPSilent:  {"udp-silent", "udp", true, false, "No answer: a firewall drops the datagrams, or the server keeps silent to strangers."},
	UDPRefused: {"udp-refused", "udp", true, false, "An ICMP error says that the datagrams are refused: a firewall rejects them, or nothing listens there."},
	NotTime:    {"not-time", "udp", false, false, "The answer is not the time: it is no valid NTP, or the server says that it does not know."},
}

// String returns the cause's word.
func (c Cause) String() string {
	if c < numCauses {
		return causes[c].word
	}
	return "cause(" + strconv.Itoa(int(c)) + ")"
}

// Stage returns where it broke: dns, proxy, tcp, tls, api-server, http, registry or udp; empty if nowhere.
func (c Cause) Stage() string {
	if c < numCauses {
		return causes[c].stage
	}
	return ""
}

// Likely returns a sentence: what is likely behind it, and what to do.
func (c Cause) Likely() string {
	if c < numCauses {
		return causes[c].likely
	}
	return ""
}

// Causes returns all of them, for tables.
func Causes() []Cause {
	all := make([]Cause, 0, numCauses-1)
	for c := Reached; c < numCauses; c++ {
		all = append(all, c)
	}
	return all
}

// MarshalText is String.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads a cause's word.
func (c *Cause) UnmarshalText(b []byte) error {
	for i := range causes {
		if causes[i].word == string(b) && i > 0 {
			*c = Cause(i)
			return nil
		}
	}
	return fmt.Errorf("cause %q: not in the list", b)
}

// A Fault is a probe's error: where it broke, and what was seen there.
type Fault struct {
	Cause  Cause
	Detail string // what was seen, in one line; for people
}

// Error returns the cause and the detail.
func (f *Fault) Error() string { return f.Cause.String() + ": " + f.Detail }

func fault(c Cause, format string, args ...any) *Fault {
	return &Fault{c, fmt.Sprintf(format, args...)}
}

// faultOf returns the fault in err; an error that is none is a defect in a probe, and is told as an interruption.
func faultOf(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return &Fault{Interrupted, err.Error()}
}
