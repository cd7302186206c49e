package wire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"os"
	"slices"
	"testing"

	"tidegate.io/tidegate/wire/wiretest"
)

var name = "mcr.microsoft.com"

func TestReadClientHello(t *testing.T) {
	client := wiretest.Client(name)
	message := client.Message()
	for _, row := range []struct {
		what   string
		stream []byte
		want   ClientHello
		err    error
	}{
		{"an ordinary hello", client.Bytes(), ClientHello{ServerName: name, Version: 0x0304, Records: 1}, nil},
		{"a post-quantum hello", wiretest.PostQuantum(name).Bytes(), ClientHello{ServerName: name, Version: 0x0304, Records: 1}, nil},
		{"a hello of TLS 1.2", client.Without(43).Bytes(), ClientHello{ServerName: name, Version: 0x0303, Records: 1}, nil},
		{"a hello of TLS 1.0 without extensions", wiretest.Hello{Version: 0x0301, Suites: []uint16{5}, Compressions: []byte{1, 0}}.Bytes(),
			ClientHello{Version: 0x0301, Records: 1}, nil},
		{"an empty list of extensions", wiretest.Hello{Suites: []uint16{5}, Compressions: []byte{0}, Extensions: []wiretest.Extension{}}.Bytes(),
			ClientHello{Version: 0x0303, Records: 1}, nil},
		{"no server named", client.Without(0).Bytes(), ClientHello{Version: 0x0304, Records: 1}, nil},
		{"a name with ECH beside it", client.With(wiretest.ECH()).Bytes(), ClientHello{ServerName: name, ECH: true, Version: 0x0304, Records: 1}, nil},
		{"an address as name comes out as sent", wiretest.Client("20.1.2.3").Bytes(), ClientHello{ServerName: "20.1.2.3", Version: 0x0304, Records: 1}, nil},
		{"a name with NUL and capitals comes out as sent", wiretest.Client("A\x00b").Bytes(), ClientHello{ServerName: "A\x00b", Version: 0x0304, Records: 1}, nil},
		{"GREASE among the versions", client.With(wiretest.Versions(0x7a7a, 0x0303)).Bytes(), ClientHello{ServerName: name, Version: 0x0303, Records: 1}, nil},
		{"15 KB", client.PadTo(15_000).Bytes(), ClientHello{ServerName: name, Version: 0x0304, Records: 1}, nil},
		{"17 KB", client.PadTo(17_000).Bytes(), ClientHello{ServerName: name, Version: 0x0304, Records: 2}, nil},
		{"60 KB", client.PadTo(60_000).Bytes(), ClientHello{ServerName: name, Version: 0x0304, Records: 4}, nil},
		{"the longest", client.PadTo(maxMessage).Bytes(), ClientHello{ServerName: name, Version: 0x0304, Records: 4}, nil},
		{"records of 1 byte, then the rest", wiretest.Records(message, 1, 1, 1, 1, 1, 1, 1, 500), ClientHello{ServerName: name, Version: 0x0304, Records: 8}, nil},
		{"16 records", wiretest.Records(message, (len(message)+15)/16), ClientHello{ServerName: name, Version: 0x0304, Records: 16}, nil},
		{"records of version 3.3", wiretest.Record(22, 0x0303, message), ClientHello{ServerName: name, Version: 0x0304, Records: 1}, nil},

		{"nothing yet", nil, ClientHello{}, ErrMore},
		{"half a header", client.Bytes()[:3], ClientHello{}, ErrMore},
		{"all but the last byte", client.Bytes()[:len(client.Bytes())-1], ClientHello{}, ErrMore},
		{"a long hello of which the first record is there", client.PadTo(60_000).Bytes()[:16389], ClientHello{}, ErrMore},

		{"a banner of SSH", []byte("S"), ClientHello{}, ErrNotTLS},
		{"an HTTP request", []byte("G"), ClientHello{}, ErrNotTLS},
		{"SSLv2", []byte{0x80}, ClientHello{}, ErrNotTLS},
		{"an alert first", append([]byte{21, 3, 1, 0, 2, 1, 0}, client.Bytes()...), ClientHello{}, ErrNotTLS},
		{"ChangeCipherSpec first", append([]byte{20, 3, 3, 0, 1, 1}, client.Bytes()...), ClientHello{}, ErrNotTLS},
		{"a ServerHello", wiretest.Record(22, 0x0303, []byte{2}), ClientHello{}, ErrNotTLS},
		{"a record of SSL 3.0", []byte{22, 3, 0}, ClientHello{}, ErrVersion},
		{"a record of DTLS", []byte{22, 0xfe}, ClientHello{}, ErrVersion},
		{"a hello of SSL 3.0", wiretest.Hello{Version: 0x0300, Suites: []uint16{5}, Compressions: []byte{0}}.Bytes(), ClientHello{}, ErrVersion},
		{"an empty record first", append([]byte{22, 3, 1, 0, 0}, client.Bytes()...), ClientHello{}, ErrEmptyRecord},
		{"a record of 2^14 + 1", []byte{22, 3, 1, 0x40, 1}, ClientHello{}, ErrRecordSize},
		{"17 records", wiretest.Records(message, append(slices.Repeat([]int{1}, 16), 1000)...), ClientHello{}, ErrRecords},
		{"a length over the limit", wiretest.Record(22, 0x0301, []byte{1, 1, 0, 0}), ClientHello{}, ErrHelloSize},
		{"an alert between two pieces", append(wiretest.Record(22, 0x0301, message[:50]), 21), ClientHello{}, ErrNotTLS},
		{"a second message in the record", wiretest.Record(22, 0x0301, append(bytes.Clone(message), message...)), ClientHello{}, ErrTrailing},
		{"a byte after the extensions", helloWith(message, 1), ClientHello{}, ErrHello},
		{"a length that ends before the extensions do", helloWith(message[:len(message)-1], 0), ClientHello{}, ErrHello},
		{"no cipher suites", wiretest.Hello{Compressions: []byte{0}}.Bytes(), ClientHello{}, ErrHello},
		{"no compression methods", wiretest.Hello{Suites: []uint16{5}}.Bytes(), ClientHello{}, ErrHello},
		{"a session ID of 33 bytes", wiretest.Hello{Session: make([]byte, 33), Suites: []uint16{5}, Compressions: []byte{0}}.Bytes(), ClientHello{}, ErrHello},
		{"two server_name extensions", client.Also(wiretest.ServerName("evil.example")).Bytes(), ClientHello{}, ErrDuplicate},
		{"two empty extensions of one kind", client.Also(wiretest.Extension{ID: 0x3a3a}, wiretest.Extension{ID: 0x3a3a}).Bytes(), ClientHello{}, ErrDuplicate},
		{"65 extensions", client.Also(manyExtensions(60)...).Bytes(), ClientHello{}, ErrExtensions},
		{"two names in one extension", client.With(wiretest.ServerName(name, "evil.example")).Bytes(), ClientHello{}, ErrServerName},
		{"an empty list of names", client.With(wiretest.ServerName()).Bytes(), ClientHello{}, ErrServerName},
		{"an empty extension", client.With(wiretest.Extension{ID: 0}).Bytes(), ClientHello{}, ErrServerName},
		{"an empty name", wiretest.Client("").Bytes(), ClientHello{}, ErrServerName},
		{"a trailing dot", wiretest.Client(name + ".").Bytes(), ClientHello{}, ErrServerName},
		{"a name of 256 bytes", wiretest.Client(string(make([]byte, 256))).Bytes(), ClientHello{}, ErrServerName},
		{"a name of another type", client.With(wiretest.Extension{ID: 0, Data: []byte{0, 4, 1, 0, 1, 'a'}}).Bytes(), ClientHello{}, ErrServerName},
		{"a byte after the list of names", client.With(wiretest.Extension{ID: 0, Data: []byte{0, 4, 0, 0, 1, 'a', 0}}).Bytes(), ClientHello{}, ErrServerName},
		{"pre_shared_key before the end", client.Also(wiretest.Extension{ID: 41}, wiretest.ALPN("h2")).Bytes(), ClientHello{}, ErrHello},
		{"half a version", client.With(wiretest.Extension{ID: 43, Data: []byte{3, 3, 4, 3}}).Bytes(), ClientHello{}, ErrHello},
	} {
		t.Run(row.what, func(t *testing.T) {
			if row.err == nil {
				row.want.Len = len(row.stream)
			}
			got, err := ReadClientHello(row.stream)
			if got != row.want || err != row.err {
				t.Errorf("ReadClientHello = %+v, %v; want %+v, %v", got, err, row.want, row.err)
			}
			checkSegments(t, row.stream)
		})
	}
}

// helloWith is the message with more zero bytes and its length put right, in one record.
func helloWith(message []byte, more int) []byte {
	m := append(bytes.Clone(message), make([]byte, more)...)
	n := len(m) - 4
	m[1], m[2], m[3] = byte(n>>16), byte(n>>8), byte(n)
	return wiretest.Record(22, 0x0301, m)
}

func manyExtensions(n int) []wiretest.Extension {
	var out []wiretest.Extension
	for i := range n {
		out = append(out, wiretest.Extension{ID: uint16(1000 + i)})
	}
	return out
}

// checkSegments holds the verdict on each prefix of stream against the verdict on the whole:
// a prefix is either undecided or has it already.
func checkSegments(t *testing.T, stream []byte) {
	t.Helper()
	whole, wholeErr := ReadClientHello(stream)
	step := 1 + len(stream)/2000
	for n := 0; n < len(stream); n += step {
		h, err := ReadClientHello(stream[:n])
		if errors.Is(err, ErrMore) {
			continue
		}
		if h != whole || err != wholeErr {
			t.Fatalf("after %d of %d bytes: %+v, %v; on the whole: %+v, %v", n, len(stream), h, err, whole, wholeErr)
		}
		return
	}
}

func TestReadClientHelloLeavesEarlyData(t *testing.T) {
	hello := wiretest.Client(name).Bytes()
	h, err := ReadClientHello(append(bytes.Clone(hello), 23, 3, 3, 0, 200, 1))
	if err != nil || h.Len != len(hello) {
		t.Errorf("Len = %d, %v; want %d", h.Len, err, len(hello))
	}
}

func TestReadClientHelloOfPeers(t *testing.T) {
	for what, config := range map[string]*tls.Config{
		"crypto/tls":                 {ServerName: name},
		"crypto/tls, TLS 1.2":        {ServerName: name, MaxVersion: tls.VersionTLS12},
		"crypto/tls, not PQ":         {ServerName: name, CurvePreferences: []tls.CurveID{tls.X25519}},
		"crypto/tls, PQ only":        {ServerName: name, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}},
		"crypto/tls, konnectivity":   {ServerName: name, NextProtos: []string{"konnectivity", "h2"}},
		"crypto/tls, capital letter": {ServerName: "Mcr.microsoft.com"},
	} {
		h, err := ReadClientHello(wiretest.Dialled(config))
		if err != nil || h.ServerName != config.ServerName {
			t.Errorf("%s: %+v, %v", what, h, err)
		}
	}
	h, err := ReadClientHello(wiretest.Dialled(&tls.Config{ServerName: "20.1.2.3"}))
	if err != nil || h.ServerName != "" {
		t.Errorf("crypto/tls to an address: %+v, %v", h, err)
	}
}

func TestReadSecondHello(t *testing.T) {
	hello := wiretest.Client(name).Bytes()
	ccs := []byte{20, 3, 3, 0, 1, 1}
	for _, row := range []struct {
		what   string
		stream []byte
		n      int
		err    error
	}{
		{"alone", hello, len(hello), nil},
		{"after ChangeCipherSpec", append(bytes.Clone(ccs), hello...), 6 + len(hello), nil},
		{"nothing yet", nil, 0, ErrMore},
		{"half a ChangeCipherSpec", ccs[:5], 0, ErrMore},
		{"ChangeCipherSpec alone", ccs, 0, ErrMore},
		{"two of them", append(append(bytes.Clone(ccs), ccs...), hello...), 0, ErrNotTLS},
		{"a ChangeCipherSpec of two bytes", []byte{20, 3, 3, 0, 2}, 0, ErrNotTLS},
		{"a ChangeCipherSpec of another value", []byte{20, 3, 3, 0, 1, 2}, 0, ErrNotTLS},
		{"early data", []byte{23}, 0, ErrNotTLS},
	} {
		h, err := ReadSecondHello(row.stream)
		if err != row.err || h.Len != row.n {
			t.Errorf("%s: Len %d, %v; want %d, %v", row.what, h.Len, err, row.n, row.err)
		}
	}
}

func TestSameServer(t *testing.T) {
	first := ClientHello{ServerName: name, Len: 200}
	for _, row := range []struct {
		what   string
		second ClientHello
		want   bool
	}{
		{"the same name in a longer hello", ClientHello{ServerName: name, Len: 300}, true},
		{"another name", ClientHello{ServerName: "evil.example"}, false},
		{"no name", ClientHello{}, false},
		{"other letters", ClientHello{ServerName: "MCR.microsoft.com"}, false},
		{"ECH only now", ClientHello{ServerName: name, ECH: true}, false},
	} {
		if got := first.SameServer(row.second); got != row.want {
			t.Errorf("%s: %v", row.what, got)
		}
	}
}

// TestReadClientHelloRecorded reads what real clients sent to a loopback port.
func TestReadClientHelloRecorded(t *testing.T) {
	for file, want := range map[string]ClientHello{
		"openssl-3.0":              {ServerName: name, Version: 0x0304, Records: 1, Len: 323},
		"openssl-3.0-noname":       {Version: 0x0304, Records: 1, Len: 297},
		"openssl-3.0-tls12":        {ServerName: name, Version: 0x0303, Records: 1, Len: 214},
		"openssl-3.0-tls10":        {ServerName: name, Version: 0x0301, Records: 1, Len: 158},
		"openssl-3.0-konnectivity": {ServerName: name, Version: 0x0304, Records: 1, Len: 342},
		"openssl-3.0-split64":      {ServerName: name, Version: 0x0304, Records: 5, Len: 343},
		"curl-7.88":                {ServerName: name, Version: 0x0304, Records: 1, Len: 517},
		"curl-7.88-dot":            {ServerName: name, Version: 0x0304, Records: 1, Len: 517},
		"wget-1.21":                {ServerName: "localhost", Version: 0x0304, Records: 1, Len: 517},
		"python-3-ssl":             {ServerName: name, Version: 0x0304, Records: 1, Len: 517},
		"node-20":                  {ServerName: name, Version: 0x0304, Records: 1, Len: 375},
		"java-17":                  {ServerName: name, Version: 0x0304, Records: 1, Len: 466},
	} {
		stream := recorded(t, "hello/"+file)
		if h, err := ReadClientHello(stream); h != want || err != nil {
			t.Errorf("%s: %+v, %v; want %+v", file, h, err, want)
		}
		checkSegments(t, stream)
	}
}

func recorded(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
