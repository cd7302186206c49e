// Package web serves what operators and their tools ask of a running gateway:
// health, metrics, status, and the flows as they pass.
//
// It promises that everything on the management address only reads; what changes
// something is served on the control socket alone, which is the file of the
// machine's administrator. A request that names a host by DNS is refused, so that
// no page in a browser inside can be made to ask for it (DNS rebinding). It never
// decides, and knows the gateway through functions only.
package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tidegate.io/tidegate/flowlog"
)

// How long a client may take. Flows are watched for as long as somebody watches.
const (
	readTimeout = 10 * time.Second
	idleTimeout = 2 * time.Minute
	stopTimeout = time.Second
	maxHeader   = 16 << 10
)

// Check is one condition of being ready; nil is good.
type Check struct {
	Name string
	Err  error
}

// Server serves. Its fields are set before and do not change; its functions are
// called by many goroutines at once.
type Server struct {
	// Ready says whether new connections are decided as they should be.
	Ready func() []Check

	// Status is printed as JSON.
	Status func(ctx context.Context) any

	// Metrics are printed in Prometheus' text format.
	Metrics prometheus.Gatherer

	// Flows are shown and watched.
	Flows *flowlog.Log

	// Reload brings the file into force, on the control socket only.
	Reload func(ctx context.Context) error
}

// Serve serves the management address until ctx is done, and then returns nil.
// It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	return serve(ctx, l, byAddress(s.reading()))
}

// ServeControl serves the control socket until ctx is done, and then returns nil.
// It closes l.
func (s *Server) ServeControl(ctx context.Context, l net.Listener) error {
	mux := s.reading()
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, r *http.Request) {
		if err := s.Reload(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		s.status(w, r)
	})
	mux.HandleFunc("POST /collect", collect)
	return serve(ctx, l, mux)
}

func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler: h, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		soon, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		defer close(stopped)
		_ = server.Shutdown(soon) // closes the listener, and waits for requests
	})
	err := server.Serve(l)
	if !stop() {
		<-stopped          // Shutdown has closed the listener, and waits for requests
		_ = server.Close() // those that Shutdown did not wait for
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *Server) reading() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /healthz", s.readyz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /status", s.status)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /flows", s.flows)
	mux.HandleFunc("GET /flows/watch", s.watch)
	return mux
}

// byAddress lets requests through that name the host by address, or as localhost.
func byAddress(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil && host != "localhost" {
			http.Error(w, "ask by address", http.StatusMisdirectedRequest)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		h.ServeHTTP(w, r)
	})
}

// readyz answers 200 when every check is good. With ?verbose, or when one is
// not, it lists them as Kubernetes does.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	checks, bad := s.Ready(), 0
	for _, c := range checks {
		if c.Err != nil {
			bad++
		}
	}
	if bad > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if !r.URL.Query().Has("verbose") && bad == 0 {
		fmt.Fprintln(w, "ok")
		return
	}
	for _, c := range checks {
		if c.Err != nil {
			fmt.Fprintf(w, "[-]%s: %v\n", c.Name, c.Err)
		} else {
			fmt.Fprintf(w, "[+]%s ok\n", c.Name)
		}
	}
	if bad > 0 {
		fmt.Fprintf(w, "not ready: %d of %d checks failed\n", bad, len(checks))
	} else {
		fmt.Fprintln(w, "ready")
	}
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) { writeJSON(w, s.Status(r.Context())) }

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n')) // when the client has gone there is nobody to tell
}
