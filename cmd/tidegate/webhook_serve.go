package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"

	"tidegate.io/tidegate/webhook"
)

// webhookServer is a running webhook.
type webhookServer struct {
	log                *slog.Logger
	reviews            *webhook.Handler
	listen, management string
	certDir            string
	metrics            *webhookMetrics

	rotator *rotator.CertRotator // nil: the files in certDir are somebody else's
	cluster *rest.Config         // of rotator

	certificates atomic.Pointer[certwatcher.CertWatcher] // nil until there are files
}

// expires returns when the certificate that is being served ends.
func (s *webhookServer) expires() (time.Time, error) {
	w := s.certificates.Load()
	if w == nil {
		return time.Time{}, errors.New("none yet")
	}
	c, err := w.GetCertificate(nil)
	if err != nil {
		return time.Time{}, err
	}
	return c.Leaf.NotAfter, nil
}

// ready is why reviews cannot be answered, or nil.
func (s *webhookServer) ready() error {
	end, err := s.expires()
	if err == nil && !time.Now().Before(end) {
		err = fmt.Errorf("expired at %s", end.UTC().Format(time.RFC3339))
	}
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return nil
}

func (s *webhookServer) managementHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	ready := func(w http.ResponseWriter, _ *http.Request) {
		if err := s.ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
	mux.HandleFunc("GET /readyz", ready)
	mux.HandleFunc("GET /healthz", ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	return mux
}

// webhookMetrics count reviews. No label's value comes from a pod.
type webhookMetrics struct {
	registry *prometheus.Registry
	reviews  *prometheus.CounterVec
	duration prometheus.Histogram
}

func newWebhookMetrics(s *webhookServer) *webhookMetrics {
	m := &webhookMetrics{
		registry: prometheus.NewRegistry(),
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidegate_webhook_reviews_total", Help: "Admission reviews, by what became of them.",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tidegate_webhook_review_duration_seconds", Help: "Time from a review's headers to its answer.",
			Buckets: []float64{.0001, .0005, .001, .005, .01, .025, .05, .1, .5, 1, 2},
		}),
	}
	for _, r := range webhook.Results() {
		m.reviews.WithLabelValues(string(r)) // so that a rate can be had from the first one on
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m.reviews, m.duration,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tidegate_webhook_certificate_expiry_timestamp_seconds", Help: "When the certificate that is being served ends; 0 while there is none.",
		}, func() float64 {
			end, err := s.expires()
			if err != nil {
				return 0
			}
			return float64(end.Unix())
		}))
	return m
}

func (m *webhookMetrics) done(r webhook.Result, took time.Duration) {
	m.reviews.WithLabelValues(string(r)).Inc()
	m.duration.Observe(took.Seconds())
}

// sparing writes what others make it write: of each minute the first ten lines,
// and how many more there were. A connection that ends in its handshake is a
// line, and anybody in the cluster can open thousands. It may be used by many
// goroutines.
type sparing struct {
	to io.Writer

	mu      sync.Mutex
	minute  time.Time // that is being counted
	written int       // lines in it
	left    int       // lines left out of it
}

const linesAMinute = 10

// Write implements io.Writer, for one line at a time.
func (w *sparing) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); now.Sub(w.minute) >= time.Minute {
		if w.left > 0 {
			fmt.Fprintf(w.to, "and %d more such lines since %s\n", w.left, w.minute.UTC().Format(time.RFC3339))
		}
		w.minute, w.written, w.left = now, 0, 0
	}
	if w.written == linesAMinute {
		w.left++
		return len(line), nil
	}
	w.written++
	return w.to.Write(line)
}
