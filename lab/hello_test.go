//go:build linux

package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// read is what crypto/tls makes of a client's bytes.
func read(t *testing.T, b []byte) (*tls.ClientHelloInfo, error) {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	go func() { _, _ = client.Write(b); _ = client.Close() }()
	var got *tls.ClientHelloInfo
	done := errors.New("seen enough")
	err := tls.Server(server, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		got = h
		return nil, done
	}}).HandshakeContext(context.Background())
	if errors.Is(err, done) {
		err = nil
	}
	return got, err
}

func TestHelloIsOneForCryptoTLS(t *testing.T) {
	for _, name := range []string{"mcr.microsoft.com", "20.1.2.3", "a b", "nul\x00.example"} {
		for _, padding := range []int{0, 12 << 10, 40 << 10} {
			h := sni(name)
			h.padding = padding
			got, err := read(t, h.record())
			if err != nil || got.ServerName != name {
				t.Errorf("%q behind %d bytes: %v, %v", name, padding, got, err)
			}
		}
	}
	if got, err := read(t, hello{}.record()); err != nil || got.ServerName != "" {
		t.Errorf("no name: %v, %v", got, err)
	}
	if _, err := read(t, hello{names: [][]byte{[]byte("a.b")}, more: [][]byte{[]byte("c.d")}}.record()); err == nil {
		t.Error("two name extensions are one too many")
	}
}

func TestWholeHello(t *testing.T) {
	for _, size := range []int{1, 3, 100, maxRecordPayload} {
		b := records(sni("mcr.microsoft.com").message(), size)
		for n := range b {
			if wholeHello(b[:n]) {
				t.Fatalf("records of %d bytes: whole after %d of %d bytes", size, n, len(b))
			}
		}
		if !wholeHello(b) {
			t.Errorf("records of %d bytes: not whole", size)
		}
	}
}

// TestShaperChangesNothingInside: the handshake message is the client's own, however it goes out.
func TestShaperChangesNothingInside(t *testing.T) {
	want := sni("mcr.microsoft.com").message()
	for _, s := range []*Shaper{{}, {Bytes: true}, {Records: 2}, {Records: 15, Bytes: true}} {
		a, b := net.Pipe()
		s.Conn = a
		go func() { _, _ = s.Write(records(want, maxRecordPayload)); _ = a.Close() }()
		var sent bytes.Buffer
		_, _ = sent.ReadFrom(b)
		if !bytes.Equal(sent.Bytes(), s.Hello) {
			t.Error("it remembers other bytes than it sent")
		}
		var message []byte
		count := 0
		for left := sent.Bytes(); len(left) > 5; count++ {
			n := int(left[3])<<8 | int(left[4])
			message, left = append(message, left[5:5+n]...), left[5+n:]
		}
		if diff := cmp.Diff(want, message); diff != "" || count != max(s.Records, 1) {
			t.Errorf("%d records: %s", count, diff)
		}
	}
}

func TestSpeaks(t *testing.T) {
	for head, want := range map[string]string{
		"":                            "",
		"\x16":                        "tls",
		"G":                           "",
		"GET":                         "",
		"GET /":                       "http",
		"\r\nGET /":                   "http",
		"GETTING":                     "tcp",
		"SSH-2.0":                     "tcp",
		"PRI * HTTP/2.0":              "http",
		"CONNECT a:1":                 "http",
		"\x00":                        "tcp",
		strings.Repeat("x", 1):        "tcp",
		"\x80\x2e":                    "tcp",
		"PROXY TCP4 1.2.3.4 5.6.7.8 ": "tcp",
	} {
		if got := speaks([]byte(head)); got != want {
			t.Errorf("%q: %q, want %q", head, got, want)
		}
	}
}
