package program

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// metricsHandler serves what these collectors gather, and what every Go program tells of itself.
func metricsHandler(of ...prometheus.Collector) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registry.MustRegister(of...)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

var (
	descUp        = prometheus.NewDesc("truenorth_database_up", "1 if the database answered this scrape.", nil, nil)
	descEvents    = prometheus.NewDesc("truenorth_events", "Events that are not applied, by state; each is counted up to 100,000.", []string{"state"}, nil)
	descCustomers = prometheus.NewDesc("truenorth_customers", "Living customers of the mirror, by whether they are linked; up to two minutes old where counting takes long.", []string{"linked"}, nil)
	descConflicts = prometheus.NewDesc("truenorth_link_conflicts_open", "Link conflicts that wait for a person.", nil, nil)
	descDrift     = prometheus.NewDesc("truenorth_drift_open", "Open differences between Polar and the mirror, by cause; those that begin with benign_ need nobody.", []string{"cause"}, nil)
	descRequests  = prometheus.NewDesc("truenorth_checkout_requests", "Checkout requests by state.", []string{"state"}, nil)
	descJobs      = prometheus.NewDesc("truenorth_jobs", "River jobs by queue, kind and state.", []string{"queue", "kind", "state"}, nil)
	descJobAge    = prometheus.NewDesc("truenorth_job_oldest_seconds", "How long the oldest job has been due.", []string{"queue", "kind", "state"}, nil)
	descEndpoint  = prometheus.NewDesc("truenorth_endpoint_ok", "1 if Polar's webhook endpoint sends every type of event; absent before the first look.", nil, nil)
	descFinding   = prometheus.NewDesc("truenorth_endpoint_finding", "1 if this is wrong with Polar's webhook endpoint.", []string{"finding"}, nil)
	descLookAge   = prometheus.NewDesc("truenorth_endpoint_look_age_seconds", "How long ago Polar's webhook endpoint was last looked at.", nil, nil)
	descBudget    = prometheus.NewDesc("truenorth_api_budget_left", "Calls to Polar that all processes together may make now; absent without a limit.", nil, nil)
	descCapacity  = prometheus.NewDesc("truenorth_api_budget_capacity", "Calls to Polar that all processes together may make at most at once.", nil, nil)
	descOldest    = prometheus.NewDesc("truenorth_checkout_oldest_waiting_seconds", "How long the oldest checkout request has waited for its session; 0 where none waits.", nil, nil)
	descInterval  = prometheus.NewDesc("truenorth_reconcile_interval_seconds", "How often Polar's lists are read (RECONCILE_INTERVAL); 0: only when asked.", nil, nil)
	descSweepAge  = prometheus.NewDesc("truenorth_sweep_age_seconds", "How long ago a comparison of all these objects with Polar's last ended well.", []string{"object_type"}, nil)
	descSweepOK   = prometheus.NewDesc("truenorth_sweep_ok", "1 if the newest comparison that has ended of all these objects with Polar's ended well.", []string{"object_type"}, nil)
	descDue       = prometheus.NewDesc("truenorth_change_due", "Rows of change_due that wait to be told in the change feed, up to 10,000.", nil, nil)
	descDueAge    = prometheus.NewDesc("truenorth_change_oldest_due_seconds", "How long the oldest of them has waited; 0 where none waits.", nil, nil)
	descWorkers   = prometheus.NewDesc("truenorth_workers_alive", "Workers with a recent sign of life.", nil, nil)
)

// statusCollector reads from the database, at each scrape, what is the same whichever worker tells it.
type statusCollector struct {
	store  *store.Store
	runner *jobs.Runner
	logger *slog.Logger
}

func (c *statusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descUp, descEvents, descCustomers, descConflicts, descDrift, descRequests, descJobs, descJobAge, descEndpoint, descFinding, descLookAge, descBudget, descCapacity, descOldest, descInterval, descSweepAge, descSweepOK, descDue, descDueAge, descWorkers} {
		ch <- d
	}
}

func (c *statusCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	status, err := c.store.ReadStatus(ctx)
	if err != nil {
		c.logger.WarnContext(ctx, "reading metrics failed", slog.String("error", err.Error()))
		gauge(descUp, 0)
		return
	}
	gauge(descUp, 1)
	for state, n := range status.Events {
		gauge(descEvents, float64(n), state)
	}
	gauge(descCustomers, float64(status.Linked), "true")
	gauge(descCustomers, float64(status.Unlinked), "false")
	gauge(descConflicts, float64(status.OpenConflicts))
	gauge(descRequests, float64(status.RequestsWaiting), "waiting")
	gauge(descOldest, status.OldestWaiting)
	gauge(descRequests, float64(status.RequestsOpen), "open")
	gauge(descRequests, float64(status.RequestsSucceeded), "succeeded")
	gauge(descRequests, float64(status.RequestsFailed), "failed")
	for _, q := range status.Queues {
		gauge(descJobs, float64(q.Jobs), q.Queue, q.Kind, q.State)
		gauge(descJobAge, q.OldestSeconds, q.Queue, q.Kind, q.State)
	}
	gauge(descWorkers, float64(status.WorkersAlive))
	gauge(descDue, float64(status.ChangesDue))
	gauge(descDueAge, status.OldestChange)
	c.collectReconciling(ctx, gauge)
	if watch := status.Endpoint; watch != nil {
		is := map[bool]float64{true: 1}
		gauge(descEndpoint, is[watch.State == store.EndpointOK])
		gauge(descLookAge, watch.AgeSeconds)
		for _, kind := range jobs.FindingKinds() {
			gauge(descFinding, is[slices.ContainsFunc(watch.Findings, func(f store.EndpointFinding) bool { return f.Finding == kind })], kind)
		}
	}
}

// collectReconciling tells of drift, of the sweeps that find it, and of the budget that they and others draw from.
func (c *statusCollector) collectReconciling(ctx context.Context, gauge func(d *prometheus.Desc, value float64, labels ...string)) {
	read := func(err error) bool {
		if err != nil {
			c.logger.WarnContext(ctx, "reading metrics failed", slog.String("error", err.Error()))
		}
		return err == nil
	}
	if open, err := c.store.CountOpenDrift(ctx); read(err) {
		for _, cause := range jobs.DriftCauses() {
			gauge(descDrift, float64(open[cause]), cause)
		}
	}
	gauge(descInterval, c.runner.ReconcileInterval().Seconds())
	if ends, err := c.store.ReadSweepEnds(ctx); read(err) {
		for objectType, well := range ends {
			gauge(descSweepOK, map[bool]float64{true: 1}[well], objectType)
		}
	}
	if ages, err := c.store.ReadSweepAges(ctx); read(err) {
		for objectType, age := range ages {
			gauge(descSweepAge, age.Seconds(), objectType)
		}
	}
	if left, capacity, err := c.runner.BudgetLeft(ctx); read(err) && capacity > 0 {
		gauge(descBudget, left)
		gauge(descCapacity, capacity)
	}
}
