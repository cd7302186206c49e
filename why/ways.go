package why

import "regexp"

// A Way is how something failed.
type Way struct {
	ID    string
	Means string // what it says of the network, and what to look at

	match *regexp.Regexp
}

// ways are tried in this order: the first that matches is the one.
var ways = []Way{
	{ID: "sni-missing", match: re(`SNI TLS extension was missing|SNI extension was missing`),
		Means: "The firewall saw TLS without a name and has no rule by address."},
	{ID: "intercepted", match: re(`x509: certificate signed by unknown authority|last exit status: "?60\b|unable to get local issuer certificate|self[- ]signed certificate|certificate verify failed|SEC_E_UNTRUSTED_ROOT|curl: \(60\)`),
		Means: "Somebody else's certificate came: a firewall or proxy intercepts TLS. Exempt the name from TLS inspection."},
	{ID: "wrong-name", match: re(`x509: certificate is valid for|certificate is not valid for any names|no alternative certificate subject name|ERR_TLS_CERT_ALTNAME`),
		Means: "A certificate for another name came: DNS leads to the wrong server, or a firewall answers with its own page."},
	{ID: "clock", match: re(`certificate has expired or is not yet valid|certificate is not yet valid`),
		Means: "The certificate is out of its time: look at this machine's clock first, and whether NTP is blocked."},
	{ID: "alpn", match: re(`no application protocol|ALPN|unexpected ALPN`),
		Means: "The protocol that was offered (ALPN) did not come through: a middlebox rewrites it or permits only some."},
	{ID: "proxy-authentication", match: re(`Proxy Authentication Required|\b407\b`),
		Means: "The HTTP proxy wants credentials, which nodes do not have."},
	{ID: "proxy-denied", match: re(`Received HTTP code 403 from proxy|CONNECT tunnel failed, response 403|proxyconnect tcp: Forbidden`),
		Means: "The HTTP proxy has no rule for the destination."},
	{ID: "proxy", match: re(`proxyconnect tcp|CONNECT tunnel failed|Received HTTP code 50\d from proxy|could not resolve proxy`),
		Means: "The HTTP proxy could not be reached, or could not reach the destination itself."},
	{ID: "azure-firewall", match: re(`Action: Deny|\b470\b|No rule matched\. Proceeding with default action`),
		Means: "Azure Firewall denied it: no application rule matched."},
	{ID: "no-such-name", match: re(`no such host|last exit status: "?6\b|NXDOMAIN|Could not resolve host|Name or service not known|can't find .*: Non-existent|ENOTFOUND|The remote name could not be resolved|Unknown host`),
		Means: "DNS says that the name does not exist, or refuses it: a filtering DNS has no rule for it, or a private zone lacks the record."},
	{ID: "dns-silent", match: re(`lookup .*(?:i/o timeout|server misbehaving|connection refused)|Temporary failure (?:in name resolution|resolving)|no servers could be reached|EAI_AGAIN|Resolving timed out|SERVFAIL|connection timed out; trying next origin`),
		Means: "DNS does not answer: port 53 is blocked on the way to the VNet's DNS servers, over UDP or TCP, or they have no way out."},
	{ID: "tls-timeout", match: re(`TLS handshake timeout|SSL connection timeout`),
		Means: "Connected, and no answer to the ClientHello: a firewall drops by name (SNI), does not put a large ClientHello together, or packets of full size do not pass (MTU)."},
	{ID: "tls-reset", match: re(`SSL_ERROR_SYSCALL|last exit status: "?35\b|OpenSSL SSL_connect|gnutls_handshake\(\) failed|unexpected EOF while reading|handshake.*(?:reset|EOF)|curl: \(35\)|Recv failure: Connection reset|An existing connection was forcibly closed`),
		Means: "Connected, and ended after the ClientHello: a firewall judges by name (SNI) and has no rule for it."},
	{ID: "not-tls", match: re(`first record does not look like a TLS handshake|wrong version number|server gave HTTP response to HTTPS client`),
		Means: "The answer is not TLS: a firewall or proxy answers in clear text."},
	{ID: "refused", match: re(`connection refused|last exit status: "?7\b|ECONNREFUSED`),
		Means: "The connection was refused: a firewall rejects it, or nothing listens there."},
	{ID: "reset", match: re(`connection reset by peer|ECONNRESET|write: broken pipe|http2: client connection lost|use of closed network connection`),
		Means: "The connection was cut: a firewall judged by name, or ended it when its rules changed or it had been idle."},
	{ID: "unreachable", match: re(`no route to host|network is unreachable|EHOSTUNREACH|ENETUNREACH|administratively prohibited`),
		Means: "There is no way to it: the route table has none, or a firewall rejects it."},
	{ID: "forbidden", match: re(`403 Forbidden|unexpected status(?: code)?:? 403|The requested URL returned error: 403|\b451\b`),
		Means: "Forbidden: a firewall's or proxy's page, unless the service itself asks for rights."},
	{ID: "unauthorized", match: re(`401 Unauthorized|unauthorized: authentication required|AuthorizationFailed`),
		Means: "The service itself asks who it is: the network is open, and the identity lacks the right."},
	{ID: "eof", match: re(`\bEOF\b|Empty reply from server|curl: \(52\)|server closed`),
		Means: "The other side closed without an answer: a firewall or proxy in between ended it."},
	{ID: "timeout", match: re(`i/o timeout|last exit status: "?(?:28|124)\b|context deadline exceeded|Client\.Timeout exceeded|Operation timed out|Connection timed out|timed out|ETIMEDOUT|curl: \(28\)|connection timeout|timeout expired|request canceled while waiting for connection|net/http: request canceled`),
		Means: "Nothing answered in time: a firewall drops without a word, the route leads nowhere, or answers come back another way."},
}

func wayOf(line string) (Way, bool) {
	for _, w := range ways {
		if w.match.MatchString(line) {
			return w, true
		}
	}
	return Way{}, false
}
