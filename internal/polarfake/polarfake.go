// Package polarfake is a stand-in for Polar (polar.sh): the part of its REST API that truenorth uses, the hosted
// checkout page, and the sender of webhooks with its retries, ordering and automatic disabling. Faults can be asked for.
//
// It follows Polar's published OpenAPI document and the behaviour of Polar's server. It shares no code with truenorth's
// own client and receiver, so that a misreading of Polar in one is not repeated in the other.
package polarfake

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options configure a [Fake]. The zero value is usable.
type Options struct {
	// WebhookURL is where events of every type are sent from the start. "" means no endpoint yet.
	WebhookURL string
	// WebhookSecret signs them; "" lets the fake generate one, see [Fake.Endpoints]. Its form decides the key
	// derivation, see [SchemeOf].
	WebhookSecret string
	// PublicURL is the base of hosted checkout pages, without a trailing slash. "" derives it from each request.
	PublicURL string
	// Logger receives one line per API request and delivery. nil discards.
	Logger *slog.Logger
	// Clock tells the time of documents, events and the Date header. It may run at a speed of its own, or stand still.
	// nil means time.Now.
	Clock func() time.Time
	// SignatureClock tells the time that is shared with the other side: that of signatures and of the rate limits. nil
	// means Clock.
	SignatureClock func() time.Time
	// Seed makes the ids and secrets of objects depend on the calls alone, so that a history can be played again. The
	// ids of events and deliveries, and their jitter, are drawn apart: they depend on the seed and on how the sending
	// went. 0 means unpredictable.
	Seed uint64
	// RetryScale multiplies Polar's backoff between deliveries (2-4 s, 4-8 s, ...). 0 means 1.
	RetryScale float64
	// DeliveryTimeout bounds one delivery. 0 means Polar's 10 s.
	DeliveryTimeout time.Duration
	// AnswerDelay is added to every API answer.
	AnswerDelay time.Duration
	// RateLimit is how many API requests are answered within any minute, whoever sends them; those beyond get 429 with
	// an empty body and Retry-After. Polar's own limit is 500, at its sandbox 100. 0 means none.
	RateLimit int
	// BurstLimit is the same within any second. 0 means none.
	BurstLimit int
	// MaxUndatedDeliveries is over how many deliveries the list of deliveries still answers without both bounds of time.
	// Over more it answers 504, as Polar is known to. 0 means any number.
	MaxUndatedDeliveries int
	// CustomerEventDelay is how long Polar's job queue keeps a customer event before its payload is built.
	CustomerEventDelay time.Duration
	// FulfillmentWait is how long the hosted page waits for the delivery of the succeeded checkout before it
	// sends the buyer on. 0 means Polar's 15 s.
	FulfillmentWait time.Duration
	// ExpiryInterval is the pause between two sweeps for overdue checkouts. 0 means Polar's 15 minutes.
	ExpiryInterval time.Duration
	// Parallel sends events without the FIFO guard, up to 64 at a time. Polar keeps first attempts in order.
	Parallel bool
	// AllowMultipleSubscriptions lets one customer hold several active subscriptions. Polar's default is not to.
	AllowMultipleSubscriptions bool
	// Products are added to the built-in catalogue.
	Products []Product
}

// Fake is one organization at a Polar of its own. It is safe for concurrent use.
type Fake struct {
	options Options
	logger  *slog.Logger
	routes  *http.ServeMux
	sender  *http.Client

	background context.Context //nolint:containedctx // bounds the sender's requests; ends with Close
	cancel     context.CancelFunc
	running    sync.WaitGroup

	mu           sync.Mutex
	closed       bool
	publicURL    string
	random       randomness
	limits       []*rateLimit
	lists        map[string]bool // the routes that answer lists
	requests     map[string]int
	faults       []*Fault
	organization organization
	catalog      catalog
	customers    customerIndex
	checkouts    checkoutIndex
	sales        salesIndex
	invoices     int64 // that were numbered
	endpoints    shelf[*endpoint]
	events       []*event
	eventsByID   map[string]*event
	deliveries   []*delivery
	jobs         []customerJob
	jobQueued    chan struct{} // wakes the job queue, holds at most one signal
	pending      int           // jobs and chains of deliveries that are under way
	changed      chan struct{} // closed and replaced when an event changes
	waiting      int           // how many wait on changed
	sequence     int64         // orders objects with equal created_at
}

// New returns a running Fake. Close it when done.
func New(options Options) *Fake {
	options.RetryScale = cmp.Or(options.RetryScale, 1)
	options.DeliveryTimeout = cmp.Or(options.DeliveryTimeout, 10*time.Second)
	options.FulfillmentWait = cmp.Or(options.FulfillmentWait, 15*time.Second)
	options.ExpiryInterval = cmp.Or(options.ExpiryInterval, 15*time.Minute)
	if options.Clock == nil {
		options.Clock = time.Now
	}
	if options.SignatureClock == nil {
		options.SignatureClock = options.Clock
	}
	logger := options.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}

	background, cancel := context.WithCancel(context.Background())
	f := &Fake{
		background: background,
		cancel:     cancel,
		options:    options,
		logger:     logger,
		sender:     newSender(options.DeliveryTimeout),
		publicURL:  strings.TrimSuffix(options.PublicURL, "/"),
		random:     newRandomness(options.Seed),
		limits:     newRateLimits(options),
		lists:      make(map[string]bool),
		requests:   make(map[string]int),
		customers:  newCustomerIndex(),
		checkouts:  newCheckoutIndex(),
		sales:      newSalesIndex(),
		endpoints:  newShelf(func(e *endpoint) any { return e }),
		eventsByID: make(map[string]*event),
		jobQueued:  make(chan struct{}, 1),
		changed:    make(chan struct{}),
	}
	f.organization = newOrganization(f.now())
	f.fillCatalog(options.Products)
	f.forgetWhatVanishes()
	f.routes = f.newRoutes()
	if options.WebhookURL != "" {
		f.AddEndpoint(Endpoint{URL: options.WebhookURL, Secret: options.WebhookSecret})
	}

	f.running.Go(f.runCustomerJobs)
	f.running.Go(f.runExpirySweeps)
	return f
}

// Close stops the sender and waits for everything in the background to end. API requests that a fault keeps hanging
// are let go. The state stays readable.
func (f *Fake) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.cancel()
	f.running.Wait()
	f.sender.CloseIdleConnections()
}

// SetPublicURL sets the base of hosted checkout pages, for a listener whose address was not known to [New].
func (f *Fake) SetPublicURL(base string) {
	f.mu.Lock()
	defer f.mu.Unlock()

	f.publicURL = strings.TrimSuffix(base, "/")
}

// Requests counts the API requests that arrived, also those that a fault met, by method and route:
// "POST /v1/checkouts/", "GET /v1/checkouts/{id}".
func (f *Fake) Requests() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()

	return maps.Clone(f.requests)
}

func (f *Fake) now() timestamp {
	return timestamp{f.options.Clock().UTC().Truncate(time.Microsecond)}
}

// spawn runs work in the background unless the fake is closed. The caller holds f.mu, so that no work starts once
// Close waits.
func (f *Fake) spawn(work func()) {
	if !f.closed {
		f.running.Go(work)
	}
}

// next numbers objects in the order of their creation. The caller holds f.mu.
func (f *Fake) next() int64 {
	f.sequence++
	return f.sequence
}

// announce tells those in await that an event or the queue changed. The caller holds f.mu.
func (f *Fake) announce() {
	if f.waiting == 0 {
		return
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// await returns nil once met, called under f.mu, says so.
func (f *Fake) await(ctx context.Context, met func() bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()

	f.waiting++
	defer func() { f.waiting-- }()
	for !met() {
		changed := f.changed
		f.mu.Unlock()
		var err error
		select {
		case <-changed:
		case <-ctx.Done():
			err = ctx.Err()
		case <-f.background.Done():
			err = errClosed
		}
		f.mu.Lock()
		if err != nil && !met() {
			return err
		}
	}
	return nil
}

// sleep waits for d of real time and reports whether the fake is still open.
func (f *Fake) sleep(d time.Duration) bool {
	if d <= 0 {
		return f.background.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()

	select {
	case <-timer.C:
		return true
	case <-f.background.Done():
		return false
	}
}

func (f *Fake) runExpirySweeps() {
	for f.sleep(f.options.ExpiryInterval) {
		f.ExpireOverdue()
	}
}
