package polarfake

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Polar's rules of sending.
const (
	maxDeliveries       = 10
	disablingFailures   = 10 // events in a row
	minimumBackoff      = 2 * time.Second
	maximumBackoff      = 20 * time.Minute
	fifoMaxAge          = time.Minute
	eventRetention      = 90 * 24 * time.Hour
	responseLength      = 2048 // characters
	maxParallelSends    = 64
	defaultReorderDelay = time.Second
	stateDebounce       = time.Second
)

type delivery struct {
	id        string
	event     *event
	createdAt timestamp
	succeeded bool
	code      *int
	response  *string
}

// class is the class of the HTTP status, or nil where no answer came.
func (d *delivery) class() *string {
	if d.code == nil {
		return nil
	}
	return new(strconv.Itoa(*d.code/100) + "xx")
}

func newSender(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			MaxConnsPerHost: maxParallelSends, MaxIdleConnsPerHost: maxParallelSends, IdleConnTimeout: 30 * time.Second,
			Protocols: http1(),
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func http1() *http.Protocols {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return protocols
}

// Redeliver sends an event again, as POST /v1/webhooks/events/{id}/redeliver does.
func (f *Fake) Redeliver(webhookID string) error {
	_, err := f.call(f.redeliverEvent, "", map[string]string{"id": webhookID})
	return err
}

func (f *Fake) isArchived(ev *event) bool { return f.now().Sub(ev.createdAt.Time) > eventRetention }

// origin is what an event of a subscription says that was taken over from another provider.
type origin struct {
	Provider               string `json:"provider,omitempty"`
	ProviderSubscriptionID string `json:"provider_subscription_id,omitempty"`
}

// emit records an event for every enabled endpoint that wants it. The payload is a snapshot.
func (f *Fake) emit(eventType, objectID string, data any) {
	f.emitFrom(origin{}, eventType, objectID, data)
}

func (f *Fake) emitFrom(from origin, eventType, objectID string, data any) {
	var rendered json.RawMessage
	for _, e := range f.endpoints.all {
		if !e.Enabled || !slices.Contains(e.Events, eventType) {
			continue
		}
		if rendered == nil {
			rendered = encode(data)
		}
		f.record(e, from, eventType, objectID, rendered)
	}
}

func (f *Fake) record(e *endpoint, from origin, eventType, objectID string, data json.RawMessage) {
	now := f.now()
	ev := &event{
		id: randomID(f.random.sending), eventType: eventType, objectID: objectID, apiVersion: e.APIVersion, endpoint: e,
		payload: renderPayload(e, from, eventType, now, data), createdAt: now,
		order: f.next(),
	}
	e.events = append(e.events, ev)
	f.events = append(f.events, ev)
	f.eventsByID[ev.id] = ev
	if fault := f.matchEventFault(eventType); fault != nil {
		ev.fault = fault.Kind
		f.applyEventFault(ev, fault)
	}
	if ev.fault != FaultEventDrop {
		ev.chains++
		f.pending++
		e.waiting = append(e.waiting, ev)
		f.dispatch(e)
	}
	f.announce()
}

func (f *Fake) applyEventFault(ev *event, fault *Fault) {
	delay := time.Duration(fault.Delay)
	switch fault.Kind {
	case FaultEventDelay:
		ev.held = true
	case FaultEventReorder:
		ev.held = true
		ev.endpoint.reordered = append(ev.endpoint.reordered, ev)
		if delay == 0 {
			delay = defaultReorderDelay
		}
	default:
		return
	}
	f.spawn(func() {
		if f.sleep(delay) {
			f.mu.Lock()
			f.release(ev)
			f.mu.Unlock()
		}
	})
}

func (f *Fake) release(ev *event) {
	if ev.held {
		ev.held = false
		f.dispatch(ev.endpoint)
	}
}

func renderPayload(e *endpoint, from origin, eventType string, now timestamp, data json.RawMessage) []byte {
	switch e.Format {
	case formatDiscord:
		return encode(map[string]any{
			"content": "New event: " + eventType, "embeds": []any{map[string]any{"title": eventType, "timestamp": now}},
		})
	case formatSlack:
		return encode(map[string]any{
			"text":   "New event: " + eventType,
			"blocks": []any{map[string]any{"type": "section", "text": map[string]string{"type": "mrkdwn", "text": eventType}}},
		})
	}
	return encode(struct {
		Type       string    `json:"type"`
		Timestamp  timestamp `json:"timestamp"`
		APIVersion string    `json:"api_version"`
		origin
		Data json.RawMessage `json:"data"`
	}{eventType, now, e.APIVersion, from, data})
}

// dispatch begins the first deliveries that the FIFO guard lets through: an event waits while an older one of its
// endpoint, less than a minute old, has not been delivered for the first time, be it in vain.
func (f *Fake) dispatch(e *endpoint) {
	for i := 0; i < len(e.waiting); {
		if len(e.sending) >= maxParallelSends || !f.options.Parallel && slices.ContainsFunc(e.sending, f.isYoung) {
			return
		}
		ev := e.waiting[i]
		if ev.held {
			i++
			continue
		}
		if i == 0 {
			e.waiting = e.waiting[1:]
		} else {
			e.waiting = slices.Delete(e.waiting, i, i+1)
		}
		e.sending = append(e.sending, ev)
		generation := ev.generation
		f.spawn(func() { f.deliver(ev, generation, false) })
	}
}

func (f *Fake) isYoung(ev *event) bool { return f.now().Sub(ev.createdAt.Time) < fifoMaxAge }

// redeliver starts another run of deliveries. The caller holds f.mu.
func (f *Fake) redeliver(ev *event) {
	ev.chains++
	f.pending++
	generation := ev.generation
	f.spawn(func() { f.deliver(ev, generation, true) })
	f.announce()
}

// deliver sends an event until it succeeds, is exhausted or is called off.
func (f *Fake) deliver(ev *event, generation int, again bool) {
	for f.background.Err() == nil {
		attempt := f.begin(ev, generation, again)
		if attempt == nil {
			return
		}
		code, response := f.post(attempt)
		if attempt.twice {
			f.post(attempt)
		}
		if f.background.Err() != nil {
			return
		}
		wait, goOn := f.finish(ev, generation, code, response)
		if !goOn || !f.sleep(wait) {
			return
		}
	}
}

// attempt is one POST.
type attempt struct {
	url, id   string
	payload   []byte
	timestamp time.Time
	signature string
	twice     bool // a fault wants it so
}

// begin prepares a delivery with the endpoint's secret as it is now, or returns nil when there is to be none.
func (f *Fake) begin(ev *event, generation int, again bool) *attempt {
	f.mu.Lock()
	defer f.mu.Unlock()

	e := ev.endpoint
	switch {
	case ev.generation != generation:
		return nil
	case !e.Enabled:
		f.skip(ev)
		f.dispatch(e)
		return nil
	case f.isArchived(ev), !again && ev.succeeded != nil:
		f.endChain(ev)
		return nil
	}
	ev.skipped = false
	now := f.options.SignatureClock()
	signature, err := Sign(e.Secret, e.scheme(), ev.id, now, ev.payload)
	if err != nil {
		f.logger.Error("Webhook not sent", slog.String("webhook_id", ev.id), slog.String("error", err.Error()))
		f.skip(ev)
		f.dispatch(e)
		return nil
	}
	return &attempt{
		url: e.URL, id: ev.id, payload: ev.payload, timestamp: now, signature: signature,
		twice: ev.fault == FaultEventDuplicate && ev.deliveries == 0,
	}
}

// post returns the status, nil when no answer came, and what is kept of the answer.
func (f *Fake) post(a *attempt) (code *int, response string) {
	request, err := http.NewRequestWithContext(f.background, http.MethodPost, a.url, bytes.NewReader(a.payload))
	if err != nil {
		return nil, err.Error()
	}
	request.Header.Set("User-Agent", "polar.sh webhooks")
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Webhook-Id", a.id)
	request.Header.Set("Webhook-Timestamp", strconv.FormatInt(a.timestamp.Unix(), 10))
	request.Header.Set("Webhook-Signature", a.signature)
	answer, err := f.sender.Do(request)
	if err != nil {
		return nil, err.Error()
	}
	defer func() { _ = answer.Body.Close() }() // read only

	body, err := io.ReadAll(io.LimitReader(answer.Body, responseLength*utf8.UTFMax))
	if err != nil {
		return nil, err.Error()
	}
	return &answer.StatusCode, firstRunes(string(body), responseLength)
}

func firstRunes(text string, n int) string {
	for i := range text {
		if n == 0 {
			return text[:i]
		}
		n--
	}
	return text
}

// finish records a delivery. It tells how long to wait for the next, if there is to be one.
func (f *Fake) finish(ev *event, generation int, code *int, response string) (wait time.Duration, goOn bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.announce()

	succeeded := code != nil && *code >= 200 && *code <= 299
	now := f.now()
	f.deliveries = append(f.deliveries, &delivery{
		id: randomID(f.random.sending), event: ev, createdAt: now, succeeded: succeeded, code: code, response: &response,
	})
	ev.deliveries++
	ev.modifiedAt = &now
	if code != nil {
		ev.lastCode = code
	}
	f.logger.Info("Delivered", slog.String("type", ev.eventType), slog.String("webhook_id", ev.id),
		slog.Int("status", deref(code)), slog.Int("delivery", ev.deliveries))
	f.freeNext(ev)
	calledOff := ev.generation != generation
	switch {
	case succeeded:
		ev.succeeded, ev.skipped = new(true), false
	case ev.deliveries >= maxDeliveries:
		ev.succeeded = new(false)
		if f.isFailing(ev.endpoint) {
			f.logger.Warn("Endpoint disabled after ten failed events", slog.String("endpoint_id", ev.endpoint.ID))
			f.disable(ev.endpoint)
		}
	case !calledOff:
		return f.scaled(f.backoff(ev.deliveries)), true
	}
	if !calledOff {
		f.endChain(ev)
	}
	return 0, false
}

// freeNext lets those pass that waited for the first delivery of ev.
func (f *Fake) freeNext(ev *event) {
	e := ev.endpoint
	if ev.deliveries == 1 {
		e.sending = slices.DeleteFunc(e.sending, func(other *event) bool { return other == ev })
		for _, overtaken := range e.reordered {
			if overtaken.order < ev.order {
				overtaken.held = false
			}
		}
		e.reordered = slices.DeleteFunc(e.reordered, func(other *event) bool { return !other.held })
	}
	f.dispatch(e)
}

// isFailing reports whether the ten newest events of an endpoint with an outcome all failed.
func (f *Fake) isFailing(e *endpoint) bool {
	failed := 0
	for _, ev := range slices.Backward(e.events) {
		switch {
		case ev.succeeded == nil:
			continue
		case *ev.succeeded:
			return false
		}
		if failed++; failed == disablingFailures {
			return true
		}
	}
	return false
}

// disable stops sending to an endpoint. What is pending is skipped; what happens from now on is not even recorded.
func (f *Fake) disable(e *endpoint) {
	e.Enabled, e.ModifiedAt = false, new(f.now())
	for _, ev := range e.events {
		if ev.succeeded == nil && ev.chains > 0 {
			f.skip(ev)
		}
	}
	e.waiting, e.sending = nil, nil
}

// skip calls off what is under way for an event.
func (f *Fake) skip(ev *event) {
	ev.skipped = true
	ev.generation++
	ev.held = false
	f.pending -= ev.chains
	ev.chains = 0
	e := ev.endpoint
	e.sending = slices.DeleteFunc(e.sending, func(other *event) bool { return other == ev })
	f.announce()
}

func (f *Fake) endChain(ev *event) {
	ev.chains--
	f.pending--
	ev.endpoint.sending = slices.DeleteFunc(ev.endpoint.sending, func(other *event) bool { return other == ev })
	f.dispatch(ev.endpoint)
	f.announce()
}

// backoff is how long Polar waits after the n-th failed delivery.
func (f *Fake) backoff(n int) time.Duration {
	longest := min(minimumBackoff<<n, maximumBackoff)
	return longest/2 + time.Duration(f.random.sending.Int64N(int64(longest/2)+1))
}

func (f *Fake) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) * f.options.RetryScale)
}
