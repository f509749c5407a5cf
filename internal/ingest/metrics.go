package ingest

import (
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/truenorth-dev/truenorth/internal/polar"
)

// Outcomes of deliveries, as metrics name them.
const (
	outcomeStored       = "stored"       // now
	outcomeDuplicate    = "duplicate"    // before
	outcomeUnauthorized = "unauthorized" // no valid signature
	outcomeRejected     = "rejected"     // signed or not, it is no delivery of Polar's
	outcomeOverload     = "overload"     // too many at once: 503
	outcomeUnavailable  = "unavailable"  // Postgres could not take it: 503
)

// metrics are what one Receiver counts.
type metrics struct {
	deliveries map[string]prometheus.Counter // by outcome
	signatures map[string]prometheus.Counter // by reason
	seconds    prometheus.Histogram
	collectors []prometheus.Collector
}

// newMetrics makes all series at once, so that none begins with the first fault.
func newMetrics(waiting func() float64) *metrics {
	deliveries := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "truenorth_deliveries_total", Help: "Deliveries of webhooks that this process answered, by outcome.",
	}, []string{"outcome"})
	signatures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "truenorth_bad_signatures_total", Help: "Deliveries whose signature was not accepted, by reason.",
	}, []string{"reason"})
	m := &metrics{
		deliveries: map[string]prometheus.Counter{}, signatures: map[string]prometheus.Counter{},
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "truenorth_delivery_seconds", Help: "From the head of a delivery to its answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
	for _, outcome := range []string{outcomeStored, outcomeDuplicate, outcomeUnauthorized, outcomeRejected, outcomeOverload, outcomeUnavailable} {
		m.deliveries[outcome] = deliveries.WithLabelValues(outcome)
	}
	for _, reason := range []string{polar.SignatureMissingHeaders, polar.SignatureMalformed, polar.SignatureNoMatch, polar.SignatureTooOld, polar.SignatureTooNew} {
		m.signatures[reason] = signatures.WithLabelValues(reason)
	}
	m.collectors = []prometheus.Collector{deliveries, signatures, m.seconds, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "truenorth_deliveries_waiting", Help: "Deliveries that wait for a transaction to begin.",
	}, waiting)}
	return m
}

// count counts one answer.
func (m *metrics) count(v verdict, took time.Duration) {
	m.deliveries[v.outcome()].Inc()
	m.seconds.Observe(took.Seconds())
	if reason, found := strings.CutPrefix(v.reason, reasonSignature); found {
		if counter := m.signatures[reason]; counter != nil {
			counter.Inc()
		}
	}
}

func (v verdict) outcome() string {
	switch v.status {
	case http.StatusAccepted:
		if v.reason != "" {
			return outcomeDuplicate
		}
		return outcomeStored
	case http.StatusUnauthorized:
		return outcomeUnauthorized
	case http.StatusServiceUnavailable:
		if v.reason == reasonOverload {
			return outcomeOverload
		}
		return outcomeUnavailable
	}
	return outcomeRejected
}

// Describe and Collect make a Receiver a collector of its own metrics.
func (rc *Receiver) Describe(descriptions chan<- *prometheus.Desc) {
	for _, c := range rc.metrics.collectors {
		c.Describe(descriptions)
	}
}

// Collect gives what was counted until now.
func (rc *Receiver) Collect(values chan<- prometheus.Metric) {
	for _, c := range rc.metrics.collectors {
		c.Collect(values)
	}
}
