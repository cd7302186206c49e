package wire

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"tidegate.io/tidegate/wire/wiretest"
)

// FuzzClientHello holds ReadClientHello against crypto/tls on any bytes.
func FuzzClientHello(f *testing.F) {
	addRecorded(f, "testdata/hello/*")
	client := wiretest.Client(name)
	for _, h := range []wiretest.Hello{
		client, wiretest.PostQuantum(name), client.Without(0), client.PadTo(17_000),
		client.With(wiretest.ServerName(name, "evil.example")), client.Also(wiretest.ServerName("evil.example")),
		client.With(wiretest.ECH(), wiretest.ALPN("h2", "konnectivity")),
	} {
		f.Add(h.Bytes())
		f.Add(wiretest.Records(h.Message(), 1, 40, 100, 16384))
	}
	f.Fuzz(checkHello)
}

// FuzzHelloFields does the same on hellos whose lengths add up, which random bytes seldom do:
// the body of server_name, another extension at its side, the records, the versions.
func FuzzHelloFields(f *testing.F) {
	f.Add(wiretest.ServerName(name).Data, uint16(0xfe0d), []byte{0}, []byte{200, 1, 1}, uint16(0x0303), uint16(0x0301), true)
	f.Add([]byte{0, 4, 0, 0, 1, 'a'}, uint16(0), []byte{0, 4, 0, 0, 1, 'b'}, []byte{1}, uint16(0x0301), uint16(0x0303), false)
	f.Add([]byte{0, 8, 1, 0, 1, 'a', 0, 0, 1, 'b'}, uint16(43), []byte{2, 3, 4}, []byte{255}, uint16(0x0304), uint16(0x0304), false)
	f.Add([]byte{}, uint16(41), []byte{}, []byte{60, 0, 9}, uint16(0x0300), uint16(0x0300), true)
	f.Fuzz(func(t *testing.T, names []byte, id uint16, data, cut []byte, version, record uint16, last bool) {
		h := wiretest.Client(name, wiretest.Extension{ID: 0, Data: names})
		h.Version = version
		if other := (wiretest.Extension{ID: id, Data: data}); last {
			h = h.Also(other)
		} else {
			h.Extensions = append([]wiretest.Extension{other}, h.Extensions...)
		}
		var stream []byte
		message := h.Message()
		for _, n := range cut {
			n := min(int(n), len(message))
			stream = append(stream, wiretest.Record(22, record, message[:n])...)
			message = message[n:]
		}
		if len(message) > 1<<14 {
			return
		}
		if len(message) > 0 {
			stream = append(stream, wiretest.Record(22, record, message)...)
		}
		checkHello(t, stream)
	})
}

// checkHello: what we pass under a name, crypto/tls must not see under another; what it takes,
// we must take, or be known to be stricter; and no prefix has another verdict than the whole.
func checkHello(t *testing.T, stream []byte) {
	h, err := ReadClientHello(stream)
	theirs, accepted := serverSees(stream)
	switch {
	case err == nil && accepted && theirs != h.ServerName:
		t.Errorf("we see %q, crypto/tls %q", h.ServerName, theirs)
	case err == nil && (h.Len > len(stream) || h.Len > MaxHello || h.Records > MaxRecords || len(h.ServerName) > MaxServerName):
		t.Errorf("beyond a bound: %+v", h)
	case accepted && err != nil && !stricter(err):
		t.Errorf("crypto/tls takes the hello for %q, we say %v", theirs, err)
	}
	checkSegments(t, stream)
}

// stricter reports whether err is a fault that crypto/tls lets pass. Among those that are not
// here are ErrMore, ErrDuplicate and ErrRecordSize: we never want more than it does.
func stricter(err error) bool {
	switch err {
	case ErrNotTLS: // it reads past warning alerts in front
	case ErrVersion: // it knows neither a wrong version of a record nor one too high of a hello
	case ErrRecords, ErrExtensions: // it has no bound
	case ErrHelloSize: // its bound is 64 KiB without record headers
	case ErrTrailing: // it looks at the rest of the record only later
	case ErrServerName: // it skips entries of other types than host_name, and has no bound
	case ErrHello: // it takes a session ID over 32 bytes, and no suites or compression methods
	default:
		return false
	}
	return true
}

// serverSees is the name that a crypto/tls server reads from stream, and whether it got that far.
func serverSees(stream []byte) (name string, ok bool) {
	errSeen := errors.New("seen")
	server := tls.Server(&playedConn{r: bytes.NewReader(stream)}, &tls.Config{
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			name, ok = h.ServerName, true
			return nil, errSeen
		},
	})
	_ = server.Handshake() // it ends in errSeen, or earlier
	return name, ok
}

// playedConn is a connection whose peer sent r and reads nothing. Its net.Conn is nil: crash
// on any unexpected use.
type playedConn struct {
	net.Conn
	r io.Reader
}

func (c *playedConn) Read(b []byte) (int, error)  { return c.r.Read(b) }
func (c *playedConn) Write(b []byte) (int, error) { return len(b), nil }
func (c *playedConn) Close() error                { return nil }

// FuzzServerAnswer holds ReadAnswer against a naive reader that joins records first.
func FuzzServerAnswer(f *testing.F) {
	addRecorded(f, "testdata/answer/*")
	f.Add(wiretest.Records(serverHello(retryRandom, 40), 10))
	f.Fuzz(func(t *testing.T, stream []byte) {
		a, n := ReadAnswer(stream)
		if n > len(stream) || (n > 0) != (a == RetryHello) {
			t.Errorf("%v, %d of %d", a, n, len(stream))
		}
		if len(stream) > MaxAnswer && a == AnswerMore {
			t.Errorf("undecided after %d bytes", len(stream))
		}
		message := joinHandshake(stream)
		isRetry := len(message) >= 38 && string(message[6:38]) == retryRandom
		if a == ServerHello && (len(message) < 38 || isRetry) || a == RetryHello && !isRetry {
			t.Errorf("%v of message %x", a, message)
		}
		checkAnswerSegments(t, stream)
	})
}

// joinHandshake is the content of all handshake records, the others left out.
func joinHandshake(stream []byte) (message []byte) {
	for len(stream) >= 5 {
		n := min(int(binary.BigEndian.Uint16(stream[3:])), len(stream)-5)
		if stream[0] == typeHandshake {
			message = append(message, stream[5:5+n]...)
		}
		stream = stream[5+n:]
	}
	return message
}

// FuzzPacket holds ReadPacket against the header readers of x/net, and AppendPacket against
// ReadPacket.
func FuzzPacket(f *testing.F) {
	for _, version := range []int{4, 6} {
		f.Add(with(version, set(0)))
		f.Add(with(version, set(6, 44)))
		f.Add(with(version, set(6, 0)))
	}
	f.Add(with(4, insert(20, 1, 1, 1, 0)))
	f.Add(with(4, insert(40, 30, 4, 0, 0x81)))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ReadPacket(b)
		if err != nil {
			return
		}
		checkAddresses(t, p, b)
		p.Odd, p.Transport = 0, 20
		if p.Src.Addr().Is6() {
			p.Transport = 40
		}
		again, err := ReadPacket(AppendPacket(nil, p))
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Errorf("read %+v, wrote and read %+v, %v", p, again, err)
		}
	})
}

// checkAddresses compares with what x/net reads from the IP header.
func checkAddresses(t *testing.T, p Packet, b []byte) {
	t.Helper()
	if b[0]>>4 == 4 {
		h, err := ipv4.ParseHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		if p.Src.Addr() != addr(h.Src) || p.Dst.Addr() != addr(h.Dst) || int(p.Proto) != h.Protocol || p.Transport != h.Len ||
			!bytes.Equal(p.Payload, b[h.Len+headerLen(p, b[h.Len:]):h.TotalLen]) || p.Has(IPOptions) != (len(h.Options) > 0) {
			t.Errorf("%+v, x/net %+v", p, h)
		}
		return
	}
	h, err := ipv6.ParseHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	src, _ := netip.AddrFromSlice(h.Src)
	dst, _ := netip.AddrFromSlice(h.Dst)
	if p.Src.Addr() != src || p.Dst.Addr() != dst || p.Has(IPOptions) != (int(p.Proto) != h.NextHeader) {
		t.Errorf("%+v, x/net %+v", p, h)
	}
}

// headerLen is the length of the TCP or UDP header, options included.
func headerLen(p Packet, b []byte) int {
	if p.Proto == UDP {
		return 8
	}
	return int(b[12]>>4) * 4
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// FuzzRequestHead holds what we send on against net/http: it must see the host, method, target
// and body that we judged. And reading it again must give the same value.
func FuzzRequestHead(f *testing.F) {
	for _, s := range []string{
		lines("GET /a?b=%20c HTTP/1.1", "Host: security.ubuntu.com:80", "User-Agent: x", "Cookie:"),
		lines("POST / HTTP/1.1", "Host: a", "Content-Length: 3") + "abc",
		lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked") + "1\r\nx\r\n0\r\nA: b\r\n\r\n",
		lines("GET http://a.example./x HTTP/1.0", "Connection: close"),
		lines("CONNECT [2001:db8::1]:443 HTTP/1.1", "Host: [2001:db8::1]:443", "Content-Length: 0"),
		lines("OPTIONS * HTTP/1.1", "Host: a", "Upgrade: h2c, websocket"),
		lines("GET / HTTP/1.1", "Host : a", "Host: b"), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		br := bufio.NewReaderSize(strings.NewReader(s), MaxHead)
		r, err := ReadRequest(br)
		if err != nil {
			return
		}
		head := r.AppendHead(nil)
		again, err := readRequest(string(head))
		if err != nil {
			t.Fatalf("our own head %q: %v", head, err)
		}
		want := *r
		if want.Form == Absolute {
			want.Form = Origin
			if want.Target == "*" {
				want.Form = Asterisk
			}
		}
		if !reflect.DeepEqual(*again, want) {
			t.Errorf("read %+v, wrote and read %+v", want, again)
		}
		checkNetHTTP(t, r, head, br)
	})
}

// checkNetHTTP lets net/http read what we send on.
func checkNetHTTP(t *testing.T, r *Request, head []byte, br *bufio.Reader) {
	body, bodyErr := io.ReadAll(r.Body(br))
	var out bytes.Buffer
	out.Write(head)
	if r.Framing == Chunked {
		if _, err := CopyChunked(&out, bytes.NewReader(body)); err != nil {
			t.Fatal(err)
		}
	} else {
		out.Write(body)
	}
	theirs, err := http.ReadRequest(bufio.NewReader(&out))
	if err != nil {
		t.Fatalf("net/http refuses %q: %v", head, err)
	}
	if theirs.Host != r.Authority.String() || theirs.Method != r.Method || r.Form != Connect && theirs.RequestURI != r.Target {
		t.Errorf("of %q, net/http sees %s %s for %q", head, theirs.Method, theirs.RequestURI, theirs.Host)
	}
	if bodyErr != nil {
		return
	}
	theirBody, err := io.ReadAll(theirs.Body)
	if err != nil || !bytes.Equal(theirBody, body) {
		t.Errorf("of %q, net/http reads %q, %v; we %q", head, theirBody, err, body)
	}
}

// FuzzAuthority holds the canonical form against itself, and literals against netip.
func FuzzAuthority(f *testing.F) {
	for _, s := range []string{"a.example:80", "A.b.", "[::ffff:1.2.3.4]:1", "0x7f.1", "1.2.3.4", "a@b", "\u212a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAuthority(s)
		if err != nil {
			return
		}
		again, err := ParseAuthority(a.String())
		if err != nil || again != a {
			t.Errorf("%q is %+v, again %+v, %v", s, a, again, err)
		}
		if _, err := netip.ParseAddr(a.Host); err == nil && !a.Literal {
			t.Errorf("%q is an address and no literal: %+v", s, a)
		}
	})
}

func addRecorded(f *testing.F, pattern string) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds in %s: %v", pattern, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}
