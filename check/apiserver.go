package check

import (
	"context"
	"crypto/x509"
	"net/http"
	"strings"
)

// konnectivity is the ALPN by which the tunnel's agent tells itself apart from clients of the API on the same port.
const konnectivity = "konnectivity"

// probeAPIServer shakes hands with the API server and asks for its health. A target with an address is dialled as pods
// dial it that know no name: without showing one.
func probeAPIServer(ctx context.Context, h *Host, t Target) error {
	var unverified error
	how := hello{name: t.Name.String(), mute: t.Addr.IsValid(), alpn: "http/1.1", verify: h.verifyAPIServer(t, &unverified)}
	c, err := h.shakeHands(ctx, t, how)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	a, err := get(c, t, "/healthz", nil)
	if err != nil {
		return err
	}
	healthy := a.code == http.StatusOK && strings.TrimSpace(string(a.body)) == "ok"
	switch {
	case healthy, isStatus(a.body):
		return unverified
	case a.code >= 500:
		return fault(ServerError, "the answer is %s", a.status)
	}
	return fault(NotAPIServer, "the answer to /healthz is %s, and nothing of Kubernetes is in it", a.status)
}

// probeKonnectivity shakes hands as the tunnel's agent does. It shows no client certificate, which the server asks for
// only after it has chosen the ALPN and shown its own.
func probeKonnectivity(ctx context.Context, h *Host, t Target) error {
	var unverified error
	how := hello{name: t.Name.String(), alpn: konnectivity, verify: h.verifyAPIServer(t, &unverified)}
	c, err := h.shakeHands(ctx, t, how)
	if err == nil {
		_ = c.Close()
		return unverified
	}
	switch faultOf(err).Cause {
	case TLSReset, TLSClosed, TLSSilent, TLSAlert:
	default:
		return err
	}
	how.alpn = "http/1.1"
	if c, again := h.shakeHands(ctx, t, how); again == nil {
		_ = c.Close()
		return fault(ALPNBlocked, "%s; without the ALPN it is answered", faultOf(err).Detail)
	}
	return err
}

// verifyAPIServer holds the certificate against the cluster's authority. Where that is not known it can only be told
// that the certificate is wrong: an API server of AKS is never vouched for by an authority that machines trust, and its
// own is called "ca". What is not wrong is noted in unverified.
func (h *Host) verifyAPIServer(t Target, unverified *error) func([]*x509.Certificate) error {
	name := t.Name.String()
	if t.Addr.IsValid() {
		name = "kubernetes.default.svc" // every API server's certificate has it; its outer address need not be there
	}
	return func(certs []*x509.Certificate) error {
		if h.ClusterCA != nil {
			return notTheirs(h.verify(certs, name, h.ClusterCA))
		}
		if len(certs) == 0 {
			return fault(OtherAPIServer, "it shows no certificate")
		}
		if trusts(h.Roots, certs, h.now()) == nil {
			return fault(OtherAPIServer, "a certificate by %s, which this machine trusts; the cluster's own authority is none of those", issuer(certs[0]))
		}
		if certs[0].Issuer.CommonName != "ca" {
			return fault(OtherAPIServer, "a certificate by %s", issuer(certs[0]))
		}
		*unverified = fault(Unverified, "a certificate by %s, and no authority to hold it against", issuer(certs[0]))
		return nil
	}
}

// notTheirs calls a certificate that the cluster's authority has not made what it is.
func notTheirs(err error) error {
	if err == nil {
		return nil
	}
	switch f := faultOf(err); f.Cause {
	case Intercepted, SelfSigned, WrongServer:
		return fault(OtherAPIServer, "%s", f.Detail)
	}
	return err
}
