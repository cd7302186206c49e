package why

// A Way is how something failed.
type Way struct {
	ID    string
	Means string // what it says of the network, and what to look at

	match phrases
}

// ways are tried in this order: the first that matches is the one.
var ways = []Way{
	{ID: "sni-missing", match: phrases{"sni tls extension was missing", "sni extension was missing"},
		Means: "The firewall saw TLS without a name and has no rule by address."},
	{ID: "intercepted", match: phrases{"x509: certificate signed by unknown authority", "last exit status: 60>", `last exit status: "60>`, "unable to get local issuer certificate", "self-signed certificate", "self signed certificate", "certificate verify failed", "sec_e_untrusted_root", "curl: (60)"},
		Means: "Somebody else's certificate came: a firewall or proxy intercepts TLS. Exempt the name from TLS inspection."},
	{ID: "wrong-name", match: phrases{"x509: certificate is valid for", "certificate is not valid for any names", "no alternative certificate subject name", "err_tls_cert_altname"},
		Means: "A certificate for another name came: DNS leads to the wrong server, or a firewall answers with its own page."},
	{ID: "clock", match: phrases{"certificate has expired or is not yet valid", "certificate is not yet valid"},
		Means: "The certificate is out of its time: look at this machine's clock first, and whether NTP is blocked."},
	{ID: "alpn", match: phrases{"no application protocol", "alpn mismatch", "unexpected alpn"},
		Means: "The protocol that was offered (ALPN) did not come through: a middlebox rewrites it or permits only some."},
	{ID: "proxy-authentication", match: phrases{"proxy authentication required", "response 407", "http code 407", "407 proxy"},
		Means: "The HTTP proxy wants credentials, which nodes do not have."},
	{ID: "proxy-denied", match: phrases{"received http code 403 from proxy", "connect tunnel failed, response 403", "proxyconnect tcp: forbidden"},
		Means: "The HTTP proxy has no rule for the destination."},
	{ID: "proxy", match: phrases{"proxyconnect tcp", "connect tunnel failed", "received http code 502 from proxy", "received http code 503 from proxy", "received http code 504 from proxy", "could not resolve proxy"},
		Means: "The HTTP proxy could not be reached, or could not reach the destination itself."},
	{ID: "azure-firewall", match: phrases{"action: deny", "status code 470", "470 status", "no rule matched. proceeding with default action"},
		Means: "Azure Firewall denied it: no application rule matched."},
	{ID: "no-such-name", match: phrases{"no such host", "last exit status: 6>", `last exit status: "6>`, "nxdomain", "could not resolve host", "could not resolve '", "name or service not known", "can't find …: non-existent", "enotfound", "the remote name could not be resolved", "unknown host"},
		Means: "DNS says that the name does not exist, or refuses it: a filtering DNS has no rule for it, or a private zone lacks the record."},
	{ID: "dns-silent", match: phrases{"lookup …i/o timeout", "lookup …server misbehaving", "lookup …connection refused", "nslookup …failed", "temporary failure in name resolution", "temporary failure resolving", "no servers could be reached", "eai_again", "resolving timed out", "servfail", "connection timed out; trying next origin"},
		Means: "DNS does not answer: port 53 is blocked on the way to the VNet's DNS servers, over UDP or TCP, or they have no way out."},
	{ID: "tls-timeout", match: phrases{"tls handshake timeout", "ssl connection timeout"},
		Means: "Connected, and no answer to the ClientHello: a firewall drops by name (SNI), does not put a large ClientHello together, or packets of full size do not pass (MTU)."},
	{ID: "tls-reset", match: phrases{"ssl_error_syscall", "last exit status: 35>", `last exit status: "35>`, "openssl ssl_connect", "gnutls_handshake() failed", "unexpected eof while reading", "handshake…reset", "handshake…eof", "curl: (35)", "recv failure: connection reset", "an existing connection was forcibly closed"},
		Means: "Connected, and ended after the ClientHello: a firewall judges by name (SNI) and has no rule for it."},
	{ID: "not-tls", match: phrases{"first record does not look like a tls handshake", "wrong version number", "server gave http response to https client"},
		Means: "The answer is not TLS: a firewall or proxy answers in clear text."},
	{ID: "refused", match: phrases{"connection refused", "last exit status: 7>", `last exit status: "7>`, "econnrefused", "couldn't connect to server"},
		Means: "The connection was refused: a firewall rejects it, or nothing listens there."},
	{ID: "reset", match: phrases{"connection reset by peer", "econnreset", "write: broken pipe", "http2: client connection lost", "use of closed network connection"},
		Means: "The connection was cut: a firewall judged by name, or ended it when its rules changed or it had been idle."},
	{ID: "unreachable", match: phrases{"no route to host", "network is unreachable", "ehostunreach", "enetunreach", "administratively prohibited"},
		Means: "There is no way to it: the route table has none, or a firewall rejects it."},
	{ID: "forbidden", match: phrases{"403 forbidden", "unexpected status code 403", "unexpected status code: 403", "unexpected status 403", "unexpected status: 403", "the requested url returned error: 403", "451 unavailable"},
		Means: "Forbidden: a firewall's or proxy's page, unless the service itself asks for rights."},
	{ID: "unauthorized", match: phrases{"401 unauthorized", "unauthorized: authentication required", "authorizationfailed"},
		Means: "The service itself asks who it is: the network is open, and the identity lacks the right."},
	{ID: "eof", match: phrases{"<eof>", "empty reply from server", "curl: (52)", "server closed"},
		Means: "The other side closed without an answer: a firewall or proxy in between ended it."},
	{ID: "timeout", match: phrases{"i/o timeout", "last exit status: 28>", `last exit status: "28>`, "last exit status: 124>", `last exit status: "124>`, "context deadline exceeded", "client.timeout exceeded", "operation timed out", "connection timed out", "timed out", "etimedout", "curl: (28)", "connection timeout", "timeout expired", "request canceled while waiting for connection", "net/http: request canceled"},
		Means: "Nothing answered in time: a firewall drops without a word, the route leads nowhere, or answers come back another way."},
}

// wayOf finds how something failed in a line in lower case.
func wayOf(lower string) (Way, bool) {
	for _, w := range ways {
		if w.match.in(lower) {
			return w, true
		}
	}
	return Way{}, false
}
