package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"tidegate.io/tidegate/mirror"
)

// mirrorCollector shows a mirror's counts. Its labels are the configuration's
// upstreams and a closed list of results: no client can add one.
type mirrorCollector struct {
	mirror  *mirror.Mirror
	expires func() time.Time
}

func mirrorDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tidegate_mirror_"+name, help, labels, nil)
}

var (
	mirrorRequests  = mirrorDesc("requests_total", "Requests of clients, by what became of them.", "upstream", "result")
	mirrorServed    = mirrorDesc("served_bytes_total", "Bytes of blobs and manifests sent to clients.", "upstream")
	mirrorFetched   = mirrorDesc("fetched_bytes_total", "Bytes of blobs and manifests received from upstreams.", "upstream")
	mirrorFetches   = mirrorDesc("fetches_total", "Blobs whose fetching was begun.", "upstream")
	mirrorDiscarded = mirrorDesc("discarded_total", "Blobs and manifests that were received and did not match their digest.", "upstream")
	mirrorStore     = mirrorDesc("store_bytes", "Bytes of the store that are used, as last measured; 0 without a limit.")
	mirrorLimit     = mirrorDesc("store_limit_bytes", "Bytes that the store may use; 0 is no limit.")
	mirrorExpiry    = mirrorDesc("certificate_expiry_timestamp_seconds", "When the certificate that is being served ends.")
)

// newMirrorMetrics returns what /metrics shows.
func newMirrorMetrics(m *mirror.Mirror, expires func() time.Time) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), mirrorCollector{m, expires})
	return r
}

// Describe implements [prometheus.Collector].
func (c mirrorCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{mirrorRequests, mirrorServed, mirrorFetched, mirrorFetches, mirrorDiscarded, mirrorStore, mirrorLimit, mirrorExpiry} {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (c mirrorCollector) Collect(to chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64) { to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	for _, u := range c.mirror.Upstreams {
		for _, r := range mirror.Results() {
			counter(mirrorRequests, u.Counts.Requests(r), u.Name, r.String())
		}
		counter(mirrorServed, u.Counts.Served(), u.Name)
		counter(mirrorFetched, u.Counts.Fetched(), u.Name)
		counter(mirrorFetches, u.Counts.Fetches(), u.Name)
		counter(mirrorDiscarded, u.Counts.Discarded(), u.Name)
	}
	gauge(mirrorStore, float64(c.mirror.Used()))
	gauge(mirrorLimit, float64(c.mirror.MaxBytes))
	gauge(mirrorExpiry, float64(c.expires().Unix()))
}
