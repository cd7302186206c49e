package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// A hello says what a ClientHello shows, and what the answer is held against.
type hello struct {
	name   string // shown, unless mute
	mute   bool   // show no name, as clients that dial an address do
	alpn   string // the one protocol offered; empty for none
	small  bool   // no post-quantum key share: it fits into one packet
	verify func([]*x509.Certificate) error
}

// secure makes a TLS connection over c and verifies it. c is closed when it fails.
func (h *Host) secure(ctx context.Context, c net.Conn, how hello) (*tls.Conn, error) {
	var verdict error
	conf := &tls.Config{
		ServerName:         how.name,
		InsecureSkipVerify: true, // verified below, where the ways to be wrong are told apart
		VerifyConnection: func(s tls.ConnectionState) error {
			verdict = how.verify(s.PeerCertificates)
			if verdict == nil && how.alpn == konnectivity && s.NegotiatedProtocol != konnectivity {
				verdict = fault(ALPNLost, "offered %s, and the server chose %q", konnectivity, s.NegotiatedProtocol)
			}
			return verdict
		},
	}
	if how.alpn != "" {
		conf.NextProtos = []string{how.alpn}
	}
	if how.small {
		conf.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}
	}
	if how.mute {
		conf.ServerName = ""
	}
	s := tls.Client(c, conf)
	err := s.HandshakeContext(ctx)
	if err == nil {
		return s, nil
	}
	_ = c.Close()
	if verdict != nil {
		return nil, verdict
	}
	return nil, handshakeFault(err)
}

func handshakeFault(err error) *Fault {
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &header):
		return fault(NotTLS, "the answer to the ClientHello begins with %q", header.RecordHeader[:])
	case strings.Contains(err.Error(), "remote error: tls: "):
		_, alert, _ := strings.Cut(err.Error(), "remote error: tls: ")
		return fault(TLSAlert, "the other side sent the alert %q", alert)
	case reset(err):
		return fault(TLSReset, "reset after the ClientHello")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fault(TLSClosed, "closed after the ClientHello")
	case timedOut(err):
		return fault(TLSSilent, "no answer to the ClientHello")
	case errors.Is(err, context.Canceled):
		return fault(Interrupted, "ended")
	}
	return fault(TLSAlert, "the handshake failed: %s", plain(err))
}

// trusting verifies certificates for name by roots.
func (h *Host) trusting(name string, roots *x509.CertPool) func([]*x509.Certificate) error {
	return func(certs []*x509.Certificate) error { return h.verify(certs, name, roots) }
}

// verify tells apart in which way a certificate is wrong: who made it, for whom, and when.
func (h *Host) verify(certs []*x509.Certificate, name string, roots *x509.CertPool) error {
	if len(certs) == 0 {
		return fault(WrongServer, "the server shows no certificate")
	}
	leaf := certs[0]
	at := h.now()
	inTime := at
	if at.Before(leaf.NotBefore) || at.After(leaf.NotAfter) {
		inTime = leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
	}
	chain := trusts(roots, certs, inTime)
	named := leaf.VerifyHostname(name)
	by := fmt.Sprintf("a certificate for %s by %s", subject(leaf), issuer(leaf))
	switch {
	case chain != nil && named != nil:
		return fault(WrongServer, "%s", by)
	case chain != nil && leaf.Issuer.String() == leaf.Subject.String():
		return fault(SelfSigned, "%s, itself", by)
	case chain != nil:
		return fault(Intercepted, "%s, which is not trusted", by)
	case named != nil:
		return fault(WrongCertificate, "%s", by)
	case at.Before(leaf.NotBefore):
		return fault(CertificateNotYetValid, "valid from %s, and it is %s", day(leaf.NotBefore), day(at))
	case at.After(leaf.NotAfter):
		return fault(CertificateExpired, "valid until %s, and it is %s", day(leaf.NotAfter), day(at))
	}
	return nil
}

// trusts returns nil if roots vouch for the first of certs at a time.
func trusts(roots *x509.CertPool, certs []*x509.Certificate, at time.Time) error {
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	_, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: at})
	return err
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

func subject(c *x509.Certificate) string {
	if len(c.DNSNames) > 0 {
		return clip(c.DNSNames[0])
	}
	if c.Subject.CommonName != "" {
		return clip(c.Subject.CommonName)
	}
	return "nobody"
}

func issuer(c *x509.Certificate) string {
	if c.Issuer.CommonName != "" {
		return fmt.Sprintf("%q", clip(c.Issuer.CommonName))
	}
	return fmt.Sprintf("%q", clip(c.Issuer.String()))
}

// clip bounds what a stranger wrote.
func clip(s string) string {
	const long = 120
	if len(s) > long {
		return strings.ToValidUTF8(s[:long], "") + "…"
	}
	return s
}

// shakeHands connects and secures, and finds out whether a smaller hello would have passed.
func (h *Host) shakeHands(ctx context.Context, t Target, how hello) (*tls.Conn, error) {
	c, err := h.reach(ctx, t)
	if err != nil {
		return nil, err
	}
	s, err := h.secure(ctx, c, how)
	if err == nil {
		return s, nil
	}
	switch faultOf(err).Cause {
	case TLSReset, TLSClosed, TLSSilent:
	default:
		return nil, err
	}
	how.small = true
	if c, again := h.reach(ctx, t); again == nil {
		if s, again := h.secure(ctx, c, how); again == nil {
			_ = s.Close()
			return nil, fault(LargeHello, "%s; a smaller one is answered", faultOf(err).Detail)
		}
	}
	return nil, err
}
