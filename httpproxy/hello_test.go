package httpproxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"

	"tidegate.io/tidegate/wire/wiretest"
)

// dialledHello is the hello of crypto/tls for name.
func dialledHello(name string) []byte { return wiretest.Dialled(&tls.Config{ServerName: name}) }

// serverNameOf is the name that a crypto/tls server reads from what it is sent; "-" when it reads
// no hello.
func serverNameOf(b []byte) string {
	name := "-"
	config := &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name = h.ServerName
		return nil, errors.New("enough")
	}}
	tls.Server(heard{Reader: bytes.NewReader(b)}, config).Handshake()
	return name
}

// heard is a connection that has said all it will; what is said to it is dropped. The net.Conn is
// nil, and so crashes on any unexpected use.
type heard struct {
	io.Reader
	net.Conn
}

func (h heard) Read(p []byte) (int, error) { return h.Reader.Read(p) }
func (heard) Write(p []byte) (int, error)  { return len(p), nil }
func (heard) Close() error                 { return nil }
