package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"tidegate.io/tidegate/mirror"
)

func mirrorRunCommand(path *string) *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Serve images",
		Long: `Run serves images over TLS with the certificate that its file names, which is read again
when it changes, or with one of its own: then tls/ca.crt in its store is what nodes have to
trust. It logs JSON lines to stderr, and ends when it is told to, after running requests
have had their time. Started as an ordinary user it needs no right but to its store.`,
		Example: "  tidegate mirror run --config /etc/tidegate/mirror.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := readMirror(*path)
			if err != nil {
				return err
			}
			level := slog.LevelInfo
			if quiet {
				level = slog.LevelWarn
			}
			log := slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			s := &mirrorServer{config: c, log: log}
			return s.listenAndRun(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&quiet, "quiet", false, "log no requests, only what goes wrong")
	return cmd
}

// mirrorServer is a running mirror.
type mirrorServer struct {
	config *mirror.Config
	log    *slog.Logger
	mirror *mirror.Mirror
}

// Bounds of connections.
const (
	maxMirrorConns  = 4096 // each with its goroutine and its TLS state
	mirrorHeader    = 10 * time.Second
	mirrorMaxHeader = 32 << 10
)

func (s *mirrorServer) listenAndRun(ctx context.Context) error {
	ctrllog.SetLogger(logr.FromSlogHandler(s.log.Handler())) // the certificate's watcher logs there, and else that it cannot
	clients, err := readMirrorClients(s.config, s.log)
	if err != nil {
		return err
	}
	store, err := mirror.OpenStore(s.config.Store)
	if err != nil {
		return undecided(err)
	}
	defer store.Close()
	s.mirror = &mirror.Mirror{
		Store: store, Upstreams: s.config.Upstreams, Clients: clients,
		MaxBytes: s.config.MaxBytes, MaxBlob: s.config.MaxBlob, Log: s.log,
	}
	defer s.mirror.Close()
	certificate, key := s.config.Certificate, s.config.Key
	if certificate == "" {
		own := ownCertificate{dir: filepath.Join(s.config.Store, "tls"), names: s.config.Names}
		if err := own.make(time.Now()); err != nil {
			return undecided(err)
		}
		certificate, key = own.files()
	}
	registry, err := net.Listen("tcp", s.config.Listen)
	if err != nil {
		return undecided(err)
	}
	management, err := net.Listen("tcp", s.config.Management)
	if err != nil {
		return undecided(errors.Join(err, registry.Close()))
	}
	if err := s.run(ctx, registry, management, certificate, key); err != nil {
		return undecided(err)
	}
	return nil
}

// run serves until ctx is done, or a part of it fails. It closes the listeners.
func (s *mirrorServer) run(ctx context.Context, registry, management net.Listener, certificate, key string) error {
	defer registry.Close()
	defer management.Close()
	watcher, err := certwatcher.New(certificate, key)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return watcher.Start(ctx) })
	if s.config.Certificate == "" {
		group.Go(func() error {
			own := ownCertificate{dir: filepath.Join(s.config.Store, "tls"), names: s.config.Names}
			own.renew(ctx, s.log)
			return nil
		})
	}
	group.Go(func() error {
		server := &http.Server{Handler: s.management(watcher), ReadTimeout: finishWithin, WriteTimeout: answerSlow, IdleTimeout: keepIdle}
		return serveUntilDone(ctx, server, func() error { return server.Serve(management) })
	})
	group.Go(func() error {
		server := mirrorHTTP(s.mirror, watcher.GetCertificate, s.log)
		return serveUntilDone(ctx, server, func() error {
			return server.ServeTLS(netutil.LimitListener(registry, maxMirrorConns), "", "")
		})
	})
	s.log.Info("serving images", "address", registry.Addr().String(), "store", s.config.Store, "upstreams", len(s.config.Upstreams))
	return group.Wait()
}

const answerSlow = time.Minute

// mirrorHTTP is the server of images. It speaks HTTP/1.1: a node pulls a few large
// things, each on a connection of its own, for which that is the faster and the
// smaller protocol. What is written has the mirror's own deadlines.
func mirrorHTTP(h http.Handler, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error), log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: mirrorHeader,
		ReadTimeout:       mirrorHeader, // requests have no body
		IdleTimeout:       keepIdle,
		MaxHeaderBytes:    mirrorMaxHeader,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate, DynamicRecordSizingDisabled: true},
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

func (s *mirrorServer) management(w *certwatcher.CertWatcher) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	ready := func(rw http.ResponseWriter, _ *http.Request) {
		if err := s.ready(w); err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(rw, "ok")
	}
	mux.HandleFunc("GET /readyz", ready)
	mux.HandleFunc("GET /healthz", ready)
	metrics := newMirrorMetrics(s.mirror, func() time.Time { end, _ := certificateEnd(w); return end })
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	return mux
}

// ready is why images cannot be served, or nil.
func (s *mirrorServer) ready(w *certwatcher.CertWatcher) error {
	end, err := certificateEnd(w)
	if err == nil && !time.Now().Before(end) {
		err = fmt.Errorf("expired at %s", end.UTC().Format(time.RFC3339))
	}
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if err := s.mirror.Store.Probe(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

func certificateEnd(w *certwatcher.CertWatcher) (time.Time, error) {
	c, err := w.GetCertificate(nil)
	if err != nil {
		return time.Time{}, err
	}
	return c.Leaf.NotAfter, nil
}
