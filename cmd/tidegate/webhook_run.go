package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"tidegate.io/tidegate/webhook"
)

func webhookRunCommand() *cobra.Command {
	var (
		api     apiServerFlags
		scope   scopeFlags
		kube    kubeFlags
		managed string
		s       webhookServer
	)
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Answer the API server's reviews of pods",
		Long: `Run answers admission reviews on --listen, at /mutate, over TLS with tls.crt and
tls.key of --cert-dir, which are read again when they change. With
--manage-certificate it makes and renews them in a Secret that is mounted there,
and puts their authority into the MutatingWebhookConfiguration.

It never denies an admission. Without --manage-certificate it talks to nobody.`,
		Example: "  tidegate webhook run --cluster prod.json --cert-dir /etc/tidegate/webhook",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := api.read(cmd.InOrStdin())
			if err != nil {
				return err
			}
			s.log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			s.reviews = &webhook.Handler{APIServer: name, Scope: scope.Scope, Done: s.metrics.done}
			if managed != "" {
				if s.rotator, err = newRotator(managed, s.certDir); err != nil {
					return err
				}
				if s.cluster, err = kube.config(); err != nil {
					return err
				}
			}
			return s.listenAndRun(cmd.Context())
		},
	}
	s.metrics = newWebhookMetrics(&s)
	fs := cmd.Flags()
	api.add(fs)
	scope.add(fs)
	kube.add(fs)
	fs.StringVar(&s.certDir, "cert-dir", "", "the `DIRECTORY` of tls.crt and tls.key")
	fs.StringVar(&managed, "manage-certificate", "", "make and renew the certificate: `NAMESPACE/NAME` of the Secret, of the Service, and (NAME) of the MutatingWebhookConfiguration")
	fs.StringVar(&s.listen, "listen", ":9443", "the `ADDRESS` for reviews")
	fs.StringVar(&s.management, "management", ":8080", "the `ADDRESS` for /livez, /readyz and /metrics, without TLS")
	if err := cmd.MarkFlagRequired("cert-dir"); err != nil {
		panic(err) // a flag that is not there
	}
	return cmd
}

const (
	// reviewTimeout is as long as the API server waits for an answer.
	reviewTimeout = 2 * time.Second

	// keepIdle outlives the 90 seconds after which the API server closes an
	// idle connection itself, so that no review meets one that is just closed.
	keepIdle = 3 * time.Minute

	// finishWithin is how long requests may go on when the process is to end.
	finishWithin = 5 * time.Second

	// window is how much of a review may come before it is the review's turn: the
	// least that HTTP/2 has. Go's own is sixteen times that, for each connection
	// that anybody in the cluster opens.
	window = 64 << 10
)

// listenAndRun opens the addresses, and serves until ctx is done.
func (s *webhookServer) listenAndRun(ctx context.Context) error {
	// Two libraries have one logger for the process: the certificate's watcher's, and the API server's client's.
	log := logr.FromSlogHandler(s.log.Handler())
	ctrllog.SetLogger(log)
	klog.SetLogger(log)
	reviews, err := net.Listen("tcp", s.listen)
	if err != nil {
		return undecided(err)
	}
	management, err := net.Listen("tcp", s.management)
	if err != nil {
		return undecided(errors.Join(err, reviews.Close()))
	}
	if err := s.run(ctx, reviews, management); err != nil {
		return undecided(err)
	}
	return nil
}

// run serves until ctx is done, or a part of it fails. It closes the listeners.
func (s *webhookServer) run(ctx context.Context, reviews, management net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		server := &http.Server{Handler: s.managementHandler(), ReadTimeout: finishWithin, IdleTimeout: keepIdle}
		return serveUntilDone(ctx, server, func() error { return server.Serve(management) })
	})
	if s.rotator == nil {
		group.Go(func() error { return s.serveReviews(ctx, group, reviews) })
		return group.Wait()
	}
	group.Go(func() error { return s.rotate(ctx) })
	group.Go(func() error {
		select {
		case <-s.rotator.IsReady:
			return s.serveReviews(ctx, group, reviews)
		case <-ctx.Done():
			return reviews.Close()
		}
	})
	return group.Wait()
}

// serveReviews answers reviews with the certificate of the directory, whatever
// it is at the moment.
func (s *webhookServer) serveReviews(ctx context.Context, group *errgroup.Group, l net.Listener) error {
	defer l.Close()
	watcher, err := certwatcher.New(filepath.Join(s.certDir, "tls.crt"), filepath.Join(s.certDir, "tls.key"))
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	group.Go(func() error { return watcher.Start(ctx) })
	s.certificates.Store(watcher)
	mux := http.NewServeMux()
	mux.Handle("/mutate", s.reviews)
	server := &http.Server{
		Handler: mux, ReadTimeout: reviewTimeout, WriteTimeout: 2 * reviewTimeout, IdleTimeout: keepIdle,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: watcher.GetCertificate},
		HTTP2:     &http.HTTP2Config{MaxReceiveBufferPerConnection: window, MaxReceiveBufferPerStream: window},
		ErrorLog:  log.New(&sparing{to: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn).Writer()}, "", 0),
	}
	s.log.Info("answering reviews", "address", l.Addr().String(), "apiServer", s.reviews.APIServer.String())
	return serveUntilDone(ctx, server, func() error { return server.ServeTLS(l, "", "") })
}

// serveUntilDone returns nil when ctx is done and requests have had their time.
func serveUntilDone(ctx context.Context, server *http.Server, serve func() error) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		soon, cancel := context.WithTimeout(context.Background(), finishWithin)
		defer cancel()
		_ = server.Shutdown(soon) // closes the listener, and waits for requests
	})
	err := serve()
	if !stop() {
		<-stopped
		_ = server.Close() // those that Shutdown did not wait for
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// parseNamespaced reads NAMESPACE/NAME.
func parseNamespaced(s string) (types.NamespacedName, error) {
	namespace, name, ok := strings.Cut(s, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return types.NamespacedName{}, fmt.Errorf("%q: want NAMESPACE/NAME", s)
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, nil
}
