//go:build linux

package lab

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"strings"
)

// apiALPN is what the API server's one port is known to be asked for. Tidegate must let all of it through untouched.
var apiALPN = []string{"konnectivity", "aks-tls-bootstrap", "aks-live-patching", "h2", "http/1.1"}

// serveHTTP is every web server of the lab's internet.
func (s *server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(interface{ String() string })
	dialled, _ := netip.ParseAddrPort(local.String())
	dialled = netip.AddrPortFrom(dialled.Addr().Unmap(), dialled.Port())
	remote, _ := netip.ParseAddrPort(r.RemoteAddr)
	if r.TLS != nil {
		s.rec.add(Seen{
			Proto: "https", Local: dialled, Remote: netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port()), Name: r.Host, Whole: true,
			Data: []byte(r.Method + " " + r.RequestURI),
		})
	}
	if r.Method == http.MethodConnect || strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		s.tunnel(w, r)
		return
	}
	if s.also != nil && s.also(w, r) {
		return
	}
	if s.isAPI(dialled.Addr()) {
		serveAPI(w, r)
		return
	}
	w.Header().Set("Server", "tidegate-lab")
	answer(w, r)
}

// answer replies as the real services do to what a node's own checks send: AKS counts 200-399 as reachable, and of the
// package and data hosts 400 as well.
func answer(w http.ResponseWriter, r *http.Request) {
	host, path := r.Host, r.URL.Path
	switch {
	case path == "/v2/" || path == "/v2":
		reply(w, http.StatusOK, map[string]any{})
	case strings.HasSuffix(path, "/healthz"):
		w.WriteHeader(http.StatusOK)
	case strings.Contains(host, ".data.mcr.") || host == "packages.aks.azure.com" || host == "acs-mirror.azureedge.net":
		reply(w, http.StatusBadRequest, map[string]any{"error": "InvalidUri"})
	case strings.HasPrefix(host, "management.") && r.Header.Get("Authorization") == "":
		w.Header().Set("WWW-Authenticate", "Bearer")
		reply(w, http.StatusUnauthorized, map[string]any{"error": map[string]string{"code": "AuthenticationFailed"}})
	case path == "/connecttest.txt":
		_, _ = io.WriteString(w, "Microsoft Connect Test")
	case path == "/bytes":
		_, _ = io.CopyN(w, zeros{}, 10<<20)
	default:
		saw := map[string]any{"server": "tidegate-lab", "host": host, "path": path, "from": r.RemoteAddr, "proto": r.Proto}
		if r.TLS != nil {
			saw["sni"], saw["alpn"], saw["tls"] = r.TLS.ServerName, r.TLS.NegotiatedProtocol, tls.VersionName(r.TLS.Version)
		}
		reply(w, http.StatusOK, saw)
	}
}

// serveAPI answers as an API server of AKS: health and version are public, the rest wants to know who asks.
func serveAPI(w http.ResponseWriter, r *http.Request) {
	status := func(code int, reason string) {
		reply(w, code, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code})
	}
	known := r.Header.Get("Authorization") != "" || (r.TLS != nil && len(r.TLS.PeerCertificates) > 0)
	switch path := r.URL.Path; {
	case path == "/healthz" || path == "/livez" || path == "/readyz":
		_, _ = io.WriteString(w, "ok")
	case path == "/version":
		reply(w, http.StatusOK, map[string]any{"major": "1", "minor": "34", "gitVersion": "v1.34.2", "platform": "linux/amd64"})
	case !known:
		status(http.StatusUnauthorized, "Unauthorized")
	default:
		status(http.StatusForbidden, "Forbidden")
	}
}

// tunnel takes the connection over and echoes, as whatever stands behind a CONNECT or an upgraded socket.
func (s *server) tunnel(w http.ResponseWriter, r *http.Request) {
	h, ok := w.(http.Hijacker)
	if !ok { // HTTP/2
		w.WriteHeader(http.StatusNotImplemented)
		return
	}
	c, buf, err := h.Hijack()
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	line := "HTTP/1.1 200 Connection established\r\n\r\n"
	if r.Method != http.MethodConnect {
		line = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
	}
	if _, err := io.WriteString(c, line); err == nil {
		_, _ = io.Copy(c, buf)
	}
}

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

// zeros reads as zero bytes without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
