package egress

import (
	"fmt"
	"strconv"
)

// Action is what happens to a connection. The zero Action denies.
type Action uint8

// The actions.
const (
	Deny  Action = iota
	Allow        // it may go on, and need not be asked about again
	Wait         // more must be seen of it before it can be judged
)

var actionNames = [...]string{"deny", "allow", "wait"}

// String returns the word.
func (a Action) String() string { return actionNames[a] }

// MarshalText is String.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads the word.
func (a *Action) UnmarshalText(b []byte) error {
	for i, n := range actionNames {
		if n == string(b) {
			*a = Action(i)
			return nil
		}
	}
	return fmt.Errorf("action %q: want deny, allow or wait", clip(string(b)))
}

// Reason is why: a closed list of words that can be counted.
type Reason uint8

// The reasons. Those of the first group are given by [Policy.Decide]; the rest
// belong to whoever reads the bytes, and always deny.
const (
	Unreasoned Reason = iota

	ByAddressRule
	ByNameRule
	ByAPIServerAddress
	NeedsHello
	NeedsRequest
	NoRule
	NameNotAllowed
	PortNotAllowed
	AddressNotBound
	AddressUnknown
	GuardedAddress
	NoServerName
	AddressAsName
	APIServerByName
	QUIC

	NotTLS
	MalformedHello
	HelloTooLarge
	HelloTimeout
	ClientLeft
	Interrupted
	ConflictingData
	UnconfirmedData
	ServerNameChanged
	ServerNotTLS
	TooManyPending
	AnswerLacksAddress
	NotHTTP
	MalformedRequest
	HostMismatch
	MethodNotAllowed
	UpgradeNotAllowed
	TunnelNotTLS
	NameNotResolvable
	NTPPayload
	ProtocolNotAllowed
	InvalidPacket
	PolicyChanged
	UpstreamUnreachable

	numReasons
)

// reasons holds each reason's word and, for a denial, the sentence that says
// what it means and what to do about it.
var reasons = [numReasons]struct{ word, advice string }{
	Unreasoned:          {"unreasoned", "Nothing was decided; this is a defect, please report it."},
	ByAddressRule:       {"address-rule", "An address rule permits it."},
	ByNameRule:          {"name-rule", "A rule permits the name, and DNS gave this address for it."},
	ByAPIServerAddress:  {"api-server-address", "It goes to the current address of the cluster's API server, and the cluster says apiServer: by-address."},
	NeedsHello:          {"needs-hello", "The TLS ClientHello has to be read first."},
	NeedsRequest:        {"needs-request", "The HTTP request has to be read first."},
	NoRule:              {"no-rule", "No rule permits this destination on this port and protocol; if the traffic is wanted, add a rule for it."},
	NameNotAllowed:      {"name-not-allowed", "No rule permits this name; if the traffic is wanted, add a rule for it."},
	PortNotAllowed:      {"port-not-allowed", "The name is permitted, but on another port or protocol; widen the rule if this one is wanted too."},
	AddressNotBound:     {"address-not-bound", "The name is permitted, but DNS did not give this address for it; let the client resolve the name through the gateway (point the VNet's DNS at it)."},
	AddressUnknown:      {"address-unknown", "No permitted name is known to have this address; let the client resolve the name through the gateway, or add an address rule."},
	GuardedAddress:      {"guarded-address", "The name leads to a private or special address; list the range under internal, or add an address rule for it."},
	NoServerName:        {"no-server-name", "The client showed no name (no SNI, or no Host); add an address rule, or for the API server annotate the pod with kubernetes.azure.com/set-kube-service-host-fqdn."},
	AddressAsName:       {"address-as-name", "The client showed an address where a name belongs; make it use the name, or add an address rule."},
	APIServerByName:     {"api-server-by-name", "The client dialled the API server by address and the cluster says apiServer: by-name; annotate the pod with kubernetes.azure.com/set-kube-service-host-fqdn, or say by-address."},
	QUIC:                {"quic", "QUIC hides the name, so UDP 443 is refused and clients fall back to TCP at once; nothing to do."},
	NotTLS:              {"not-tls", "The first bytes are not TLS, on a port of HTTPS rules; add a tcp:// address rule if this protocol is wanted."},
	MalformedHello:      {"malformed-hello", "The ClientHello breaks the rules of TLS in a way that two readers could read differently; update the client."},
	HelloTooLarge:       {"hello-too-large", "The ClientHello is longer than any real one; find out what the client is."},
	HelloTimeout:        {"hello-timeout", "The client did not complete its ClientHello in time; look for a client that probes ports, or for packet loss."},
	ClientLeft:          {"client-left", "The client ended the connection before it had shown a name, as a check that only connects does; nothing to do."},
	Interrupted:         {"interrupted", "The connection was not decided when the gateway restarted, or is older than its rules; the client has to connect again, and most do by themselves."},
	ConflictingData:     {"conflicting-data", "The client sent two versions of the same bytes, as evasion tools do; find out what it is."},
	UnconfirmedData:     {"unconfirmed-data", "The server acknowledged bytes that were never judged, as with decoy packets; find out what the client is."},
	ServerNameChanged:   {"server-name-changed", "The second ClientHello names another server than the first, which RFC 8446 forbids; find out what the client is."},
	ServerNotTLS:        {"server-not-tls", "The server answered the ClientHello with something that is not TLS; check what listens there."},
	TooManyPending:      {"too-many-pending", "The client has too many connections waiting for their first bytes; look for a port scan or a broken client."},
	AnswerLacksAddress:  {"answer-lacks-address", "The gateway's own look-up of the name does not hold this address; point the VNet's DNS at the gateway so that both see the same answers."},
	NotHTTP:             {"not-http", "The first bytes are not an HTTP/1 request, on a port of HTTP rules; add a tcp:// address rule if this protocol is wanted."},
	MalformedRequest:    {"malformed-request", "The request can be read in more than one way (request smuggling); update the client."},
	HostMismatch:        {"host-mismatch", "The request names one host in its target and another in its Host field, or the tunnel's TLS names another than CONNECT did; fix the client."},
	MethodNotAllowed:    {"method-not-allowed", "CONNECT is for the explicit proxy's port; configure the client to use it."},
	UpgradeNotAllowed:   {"upgrade-not-allowed", "Upgrading (h2c, WebSocket, HTTP/2 without TLS) would end the judging of requests; use HTTPS."},
	TunnelNotTLS:        {"tunnel-not-tls", "What came through the CONNECT tunnel is not TLS; add a tcp:// address rule if this protocol is wanted."},
	NameNotResolvable:   {"name-not-resolvable", "No rule permits the name, so it is not asked of the outside; add a rule, or list the zone under dns.also."},
	NTPPayload:          {"ntp-payload", "The datagram is not a plain NTP request; use a client that sends the 48 bytes of RFC 5905 without extensions."},
	ProtocolNotAllowed:  {"protocol-not-allowed", "Only TCP, UDP and the ICMP errors that belong to them pass; tunnels of other kinds do not."},
	InvalidPacket:       {"invalid-packet", "The packet has a form that two receivers could read differently (fragment, IP option, data in a SYN); find out what the client is."},
	PolicyChanged:       {"policy-changed", "The policy changed and no longer permits it."},
	UpstreamUnreachable: {"upstream-unreachable", "The destination did not answer the gateway; look at the route and at the destination."},
}

// String returns the reason's word, as counted in metrics and logs.
func (r Reason) String() string {
	if r < numReasons {
		return reasons[r].word
	}
	return "reason(" + strconv.Itoa(int(r)) + ")"
}

// Advice returns a sentence: what the reason means, and what to do about it.
func (r Reason) Advice() string {
	if r < numReasons {
		return reasons[r].advice
	}
	return ""
}

// Reasons returns all of them, for tables and metrics.
func Reasons() []Reason {
	all := make([]Reason, 0, numReasons)
	for r := Unreasoned; r < numReasons; r++ {
		all = append(all, r)
	}
	return all
}

// ParseReason reads a reason's word.
func ParseReason(s string) (Reason, error) {
	for r := range reasons {
		if reasons[r].word == s {
			return Reason(r), nil
		}
	}
	return 0, fmt.Errorf("reason %q: not in the list", clip(s))
}

// MarshalText is String.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParseReason.
func (r *Reason) UnmarshalText(b []byte) (err error) {
	*r, err = ParseReason(string(b))
	return err
}

// Verdict is a decision: what happens, why, and by which rule. The zero Verdict
// denies. It is comparable.
type Verdict struct {
	Action Action
	Reason Reason
	Rule   *Rule // the rule that permits it; nil for a denial. It belongs to the Policy: do not change it.
}

// Kept is v for whoever keeps it: with nothing of its rule but the id, since the rule is one of its policy's and would keep
// all of them, long after another policy has taken its place.
func (v Verdict) Kept() Verdict {
	if v.Rule != nil {
		v.Rule = &Rule{ID: v.Rule.ID}
	}
	return v
}

// Denied is the denial for reason r.
func Denied(r Reason) Verdict { return Verdict{Reason: r} }

// String returns "allow name-rule core/mcr" or "deny no-rule".
func (v Verdict) String() string {
	s := v.Action.String() + " " + v.Reason.String()
	if v.Rule != nil {
		s += " " + v.Rule.ID
	}
	return s
}
