package check

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"

	"tidegate.io/tidegate/egress"
)

// proxyOf returns the HTTP proxy for a target, or nil.
func (h *Host) proxyOf(t Target) (*url.URL, error) {
	if h.Proxy == nil || t.Kind == TCP || t.Kind == UDP {
		return nil, nil
	}
	scheme := "https"
	if t.Kind == HTTP {
		scheme = "http"
	}
	host := t.Name.String()
	if t.Addr.IsValid() {
		host = t.Addr.String()
	}
	u, err := h.Proxy(&url.URL{Scheme: scheme, Host: net.JoinHostPort(host, strconv.Itoa(int(t.Port)))})
	if err != nil {
		return nil, fault(ProxyUnreachable, "the proxy's URL: %s", err)
	}
	return u, nil
}

// reach opens a connection on which the target's TLS can begin: directly, or through the proxy by CONNECT.
func (h *Host) reach(ctx context.Context, t Target) (net.Conn, error) {
	proxy, err := h.proxyOf(t)
	if err != nil {
		return nil, err
	}
	if proxy == nil {
		return h.connect(ctx, t)
	}
	c, err := h.toProxy(ctx, proxy)
	if err != nil {
		return nil, err
	}
	if err := tunnel(c, t); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func (h *Host) toProxy(ctx context.Context, proxy *url.URL) (net.Conn, error) {
	port := map[string]string{"http": "80", "https": "443"}[proxy.Scheme]
	if port == "" {
		return nil, fault(ProxyUnreachable, "a proxy of the kind %q is not known", proxy.Scheme)
	}
	if proxy.Port() != "" {
		port = proxy.Port()
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fault(ProxyUnreachable, "the proxy's port %q", port)
	}
	at := Target{Port: uint16(number)}
	if at.Addr, err = netip.ParseAddr(proxy.Hostname()); err != nil {
		if at.Name, err = egress.ParseName(proxy.Hostname()); err != nil {
			return nil, fault(ProxyUnreachable, "the proxy's name: %s", err)
		}
	}
	c, err := h.connect(ctx, at)
	if err != nil {
		return nil, fault(ProxyUnreachable, "%s: %s", proxy.Host, faultOf(err).Error())
	}
	if proxy.Scheme == "http" {
		return c, nil
	}
	s := tls.Client(c, &tls.Config{ServerName: proxy.Hostname(), RootCAs: h.Roots})
	if err := s.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, fault(ProxyUnreachable, "%s: %s", proxy.Host, plain(err))
	}
	return s, nil
}

// tunnel asks a proxy for a way to the target (RFC 9110 section 9.3.6).
func tunnel(c net.Conn, t Target) error {
	host := t.Name.String()
	if t.Addr.IsValid() {
		host = t.Addr.String()
	}
	to := net.JoinHostPort(host, strconv.Itoa(int(t.Port)))
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: tidegate-check\r\n\r\n", to, to); err != nil {
		return fault(ProxyFailed, "ask the proxy: %s", plain(err))
	}
	in := bufio.NewReaderSize(c, 1<<10)
	resp, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return fault(ProxyFailed, "the proxy's answer to CONNECT: %s", plain(err))
	}
	defer func() { _ = resp.Body.Close() }() // which does not close the connection
	switch s := resp.StatusCode; {
	case s == http.StatusOK && in.Buffered() == 0:
		return nil
	case s == http.StatusOK:
		return fault(ProxyFailed, "the proxy sends something before the TLS handshake")
	case s == http.StatusProxyAuthRequired:
		return fault(ProxyAuthentication, "the proxy answers %s", clip(resp.Status))
	case s >= 500:
		return fault(ProxyFailed, "the proxy answers %s", clip(resp.Status))
	}
	return fault(ProxyDenied, "the proxy answers %s", clip(resp.Status))
}
