package wire

import "errors"

// ErrMore says that the bytes so far are the beginning of something legal and that
// more of them are needed.
var ErrMore = errors.New("more bytes needed")

// Fault is the error for bytes that are refused for good: no further byte mends them.
// Its text is a kebab-case word from the closed list below. Faults are constants, so
// that refusing a flood of garbage costs no memory.
type Fault string

// Error is the word.
func (f Fault) Error() string { return string(f) }

// Faults of a packet.
const (
	ErrTruncated Fault = "truncated"      // the buffer ends before the packet does
	ErrHeader    Fault = "bad-header"     // an IP header that contradicts itself
	ErrFragment  Fault = "fragment"       // a piece of a packet: its ports may be elsewhere
	ErrProtocol  Fault = "not-tcp-or-udp" // some other protocol than TCP or UDP
	ErrTransport Fault = "bad-transport"  // a TCP or UDP header, or TCP options, that do not add up
)

// Faults of a TLS stream.
const (
	ErrNotTLS      Fault = "not-tls"             // not a TLS handshake record, or not a hello in it
	ErrVersion     Fault = "bad-version"         // a version that no live TLS implementation sends
	ErrEmptyRecord Fault = "empty-record"        // a handshake record without content
	ErrRecordSize  Fault = "record-too-large"    // more than 2^14 bytes in one record
	ErrRecords     Fault = "too-many-records"    // one hello in more than MaxRecords records
	ErrHelloSize   Fault = "hello-too-large"     // a hello of more than MaxHello bytes
	ErrTrailing    Fault = "trailing-bytes"      // something follows the hello in its last record
	ErrHello       Fault = "malformed-hello"     // lengths or fields that do not add up
	ErrDuplicate   Fault = "duplicate-extension" // one extension twice: peers differ on which counts
	ErrExtensions  Fault = "too-many-extensions" // more than MaxExtensions
	ErrServerName  Fault = "bad-server-name"     // a server_name extension that is not exactly one host name
)

// Faults of an HTTP/1 request.
const (
	ErrHeadSize   Fault = "head-too-large"        // more than MaxHead bytes
	ErrFields     Fault = "too-many-fields"       // more than MaxFields
	ErrLine       Fault = "bad-line"              // a line that does not end in exactly CR LF, or holds a control byte
	ErrMethod     Fault = "bad-method"            // not a token
	ErrTarget     Fault = "bad-target"            // none of the four request-target forms, to the letter
	ErrHTTP       Fault = "not-http1"             // not HTTP/1.0 or HTTP/1.1, HTTP/0.9 included
	ErrHTTP2      Fault = "http2-preface"         // HTTP/2 with prior knowledge
	ErrField      Fault = "bad-field"             // a field line that is not name, colon, value
	ErrFold       Fault = "folded-field"          // a field continued on the next line
	ErrNoHost     Fault = "no-host"               // nothing says which server is meant
	ErrTwoHosts   Fault = "two-hosts"             // more than one Host field
	ErrHost       Fault = "bad-host"              // a Host or authority that is no host and port
	ErrHostDiffer Fault = "host-differs"          // the target names one server and Host another
	ErrLength     Fault = "bad-content-length"    // repeated, listed, signed or absurd
	ErrCoding     Fault = "bad-transfer-encoding" // anything but one "chunked" in HTTP/1.1
	ErrFraming    Fault = "two-framings"          // Content-Length beside Transfer-Encoding
	ErrChunk      Fault = "bad-chunk"             // chunked coding not to the letter, extensions included
)
