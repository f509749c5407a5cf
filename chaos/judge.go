package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/truenorth-dev/truenorth/internal/mirrorcheck"
)

// Limits that the promises name, or that follow from them.
const (
	answerLimit   = 8 * time.Second // of ingest, for any answer
	networkSlack  = 500 * time.Millisecond
	memoryLimit   = 256 << 20        // of one program
	recoveryLimit = 30 * time.Second // from the end of a fault to the next acknowledged delivery
	// startLimit is for how long after the end of a fault a program that it killed may still be silent.
	startLimit = 5 * time.Second
)

// promises are the six that are judged, in their order.
var promises = []string{
	"A 2xx means durable: the event is applied in the end, exactly once in its effect",
	"A checkout request ends in exactly one live session, or in a failure that says why",
	"The mirror converges to Polar",
	"A link is never made on weak evidence, and never silently changed",
	"Overload and outages slow, never break: 503 in time, bounded memory, recovery without help",
	"Without a valid secret nothing reaches the database; without a key nobody reads or enqueues",
}

// verdict is what came of a run.
type verdict struct {
	Promises []promise `json:"promises"`
	Counts   counts    `json:"counts"`
	Outages  []outage  `json:"outages"`
}

type promise struct {
	Text   string   `json:"text"`
	Broken []string `json:"broken"` // what speaks against it
}

// counts are what the verdict rests on.
type counts struct {
	Deliveries   int              `json:"deliveries"` // sent to ingest
	Accepted     int              `json:"accepted"`   // answered with 2xx
	Refused      int              `json:"refused"`    // with 503
	Unanswered   int              `json:"unanswered"`
	SlowestMS    int64            `json:"slowest_ms"` // of those answered
	Distinct     int              `json:"distinct"`   // events with a 2xx
	Forged       int              `json:"forged"`     // answered with 401
	Requests     int              `json:"requests"`   // of checkouts, acknowledged
	Failovers    int              `json:"failovers"`
	Drifted      int64            `json:"drifted"` // that the comparison after the faults had to repair
	Links        int              `json:"links"`
	PeakMemoryMB map[string]int64 `json:"peak_memory_mb"` // by program
}

// outage is what a fault did to deliveries.
type outage struct {
	Fault   int     `json:"fault"`
	What    string  `json:"what"`
	From    float64 `json:"from"`    // seconds
	To      float64 `json:"to"`      // when it was healed
	Silence float64 `json:"silence"` // the longest time without an acknowledged delivery, from its beginning on
	Whole   float64 `json:"whole"`   // from its beginning until it was over and there was a primary with a standby
	Back    float64 `json:"back"`    // from then to the next acknowledged delivery
	Pages   float64 `json:"pages"`   // from then to the next checkout that has its page
	Primary string  `json:"primary,omitempty"`
	Changed float64 `json:"changed,omitempty"` // from its beginning to the new primary
}

func (v *verdict) broken() bool {
	return slices.ContainsFunc(v.Promises, func(p promise) bool { return len(p.Broken) > 0 })
}

// judge holds the promises against the evidence. It looks at nothing else.
func judge(e *evidence) *verdict {
	v := &verdict{Outages: outages(e)}
	for i, look := range []func(*evidence) []string{
		judgeDeliveries, judgeRequests, judgeMirror, judgeLinks, judgeOverload, judgeForged,
	} {
		v.Promises = append(v.Promises, promise{Text: promises[i], Broken: look(e)})
	}
	v.Counts = count(e)
	return v
}

// charges collects what speaks against a promise.
type charges []string

func (c *charges) addf(format string, args ...any) { *c = append(*c, fmt.Sprintf(format, args...)) }

func judgeDeliveries(e *evidence) []string {
	var c charges
	stored := map[string]storedEvent{}
	for _, event := range e.Events {
		if _, twice := stored[event.ID]; twice {
			c.addf("event %s is stored twice", event.ID)
		}
		stored[event.ID] = event
	}
	accepted := map[string]entry{}
	for _, seen := range e.History {
		if _, before := accepted[seen.ID]; seen.accepted() && !before {
			accepted[seen.ID] = seen
		}
	}
	if len(accepted) == 0 {
		c.addf("no delivery was acknowledged, so nothing is proved")
	}
	for _, id := range sortedKeys(accepted) {
		seen := accepted[id]
		event, exists := stored[id]
		switch {
		case !exists:
			c.addf("event %s was answered with %d by %s at %.1f s, and is not stored", id, seen.Status, seen.Host, float64(seen.At)/1000)
		case event.State != "applied":
			c.addf("event %s was answered with %d by %s at %.1f s, and is %s: %s", id, seen.Status, seen.Host, float64(seen.At)/1000, event.State, event.Error)
		}
	}
	sent := map[string]bool{}
	for _, id := range e.Sent {
		sent[id] = true
	}
	for _, id := range sortedKeys(stored) {
		if !sent[id] {
			c.addf("event %s is stored, and Polar never sent it", id)
		}
	}
	told := map[string]int{}
	for _, request := range e.Told {
		told[request]++
	}
	for _, request := range sortedKeys(told) {
		if told[request] > 1 {
			c.addf("that request %s was paid is told %d times", request, told[request])
		}
	}
	return c
}

func judgeRequests(e *evidence) []string {
	var c charges
	requests := map[string]mirrorcheck.Request{}
	for _, r := range e.Requests {
		requests[r.ID] = r
	}
	acknowledged := map[string]entry{}
	var asked []string
	for _, seen := range e.History {
		switch seen.Kind {
		case kindAsked:
			asked = append(asked, seen.Key)
		case kindAcknowledged:
			acknowledged[seen.Key] = seen
		}
	}
	if len(acknowledged) == 0 {
		c.addf("no request was acknowledged, so nothing is proved")
	}
	for _, key := range asked {
		seen, known := acknowledged[key]
		if !known {
			c.addf("request with key %s was asked for again and again, and never acknowledged", key)
			continue
		}
		r, exists := requests[seen.Request]
		switch {
		case !exists:
			c.addf("request %s with key %s was acknowledged at %.1f s, and is not there", seen.Request, key, float64(seen.At)/1000)
		case r.Key == nil || *r.Key != key:
			c.addf("request %s was acknowledged for key %s, and bears another", seen.Request, key)
		case r.State == "queued" || r.State == "creating":
			c.addf("request %s with key %s hangs: it is %s", seen.Request, key, r.State)
		}
	}
	live := map[string]int{}
	for _, r := range e.Requests {
		if r.Key != nil && r.State != "failed" && r.State != "expired" {
			live[*r.Key]++
		}
	}
	for _, key := range sortedKeys(live) {
		if live[key] > 1 {
			c.addf("key %s has %d live requests", key, live[key])
		}
	}
	c = append(c, mirrorcheck.Doubles(e.Sessions)...)
	return append(c, mirrorcheck.Requests(e.Requests, e.Sessions)...)
}

func judgeMirror(e *evidence) []string {
	var c charges
	for name, of := range map[string]comparison{"first": e.First, "second": e.Second} {
		if of.Failed != "" {
			c.addf("the %s comparison failed: %s", name, of.Failed)
		}
	}
	if e.Second.Drifted+e.Second.Benign > 0 {
		c.addf("the second comparison found %d differences and %d benign ones", e.Second.Drifted, e.Second.Benign)
	}
	if !slices.ContainsFunc(e.History, func(seen entry) bool { return seen.Kind == kindQuiet }) {
		c.addf("within %s of the last fault not everything was worked", quietLimit)
	}
	return append(c, e.Differences...)
}

func judgeLinks(e *evidence) []string {
	var c charges
	external := map[string]string{}
	for _, one := range e.Customers {
		external[one.ID] = one.ExternalID
	}
	paid := map[paidCheckout]bool{}
	for _, k := range e.Paid {
		paid[k] = true
		paid[paidCheckout{Customer: k.Customer, User: k.User}] = true
	}
	now := map[string]link{}
	for _, l := range e.Links {
		now[l.Customer] = l
		_, lives := external[l.Customer]
		switch {
		case !lives:
			c.addf("customer %s is linked to %s, and does not exist", l.Customer, l.User)
		case l.Basis == "external_id" && external[l.Customer] != l.User:
			c.addf("customer %s is linked to %s by an external id, which is %q", l.Customer, l.User, external[l.Customer])
		case l.Basis == "checkout" && !paid[paidCheckout{Checkout: l.Checkout, Customer: l.Customer, User: l.User}]:
			c.addf("customer %s is linked to %s by checkout %q, which they did not pay", l.Customer, l.User, l.Checkout)
		case l.Basis != "external_id" && l.Basis != "checkout":
			c.addf("customer %s is linked to %s by %q, and no person did that", l.Customer, l.User, l.Basis)
		}
	}
	// Played from its beginning, the history has to give what is so now: whatever is not in it was changed silently.
	played := map[string]link{}
	for _, past := range e.LinkHistory {
		if open, twice := played[past.Customer]; twice {
			c.addf("customer %s was linked to %s while its link to %s had not ended", past.Customer, past.User, open.User)
		}
		if !past.Ended {
			played[past.Customer] = past.link
		} else if past.Reason == "" {
			c.addf("the link of customer %s to %s ended without a reason", past.Customer, past.User)
		}
	}
	for _, id := range sortedKeys(now) {
		if was, known := played[id]; !known || was.User != now[id].User || was.Basis != now[id].Basis {
			c.addf("customer %s is linked to %s by %s, and its history says %s by %s", id, now[id].User, now[id].Basis, was.User, was.Basis)
		}
	}
	for _, id := range sortedKeys(played) {
		if _, linked := now[id]; !linked {
			c.addf("customer %s is linked to %s in the history, and is not linked", id, played[id].User)
		}
	}
	if len(e.Links) == 0 {
		c.addf("nobody is linked, so nothing is proved")
	}
	return c
}

// window is a time in which something is to be expected of a program.
type window struct {
	from, to int64 // milliseconds
	what     string
}

// windows are the times of the faults that pass.
func windows(history []entry, slack time.Duration, pass func(what string) bool) []window {
	var list []window
	for i, began := range history {
		if began.Kind != kindFault || !pass(began.What) {
			continue
		}
		w := window{began.At, 1 << 60, began.What}
		for _, ended := range history[i:] {
			if ended.Kind == kindHealed && ended.Fault == began.Fault {
				w.to = ended.At + slack.Milliseconds()
				break
			}
		}
		list = append(list, w)
	}
	return list
}

// within tells whether a delivery was under way in one of the windows.
func (e entry) within(list []window) bool {
	return slices.ContainsFunc(list, func(w window) bool { return e.At >= w.from && e.At-e.Took <= w.to })
}

// takesDown tells whether a fault takes a program down.
func takesDown(name string) func(what string) bool {
	return func(what string) bool {
		return what == faultKill+" "+name || strings.HasPrefix(what, faultRestart) || what == faultUpgrade
	}
}

func judgeOverload(e *evidence) []string {
	var c charges
	down, stepped := map[string][]window{}, map[string][]window{}
	for _, name := range programNames {
		down[name] = windows(e.History, startLimit, takesDown(name))
		stepped[name] = windows(e.History, startLimit, func(what string) bool { return strings.HasPrefix(what, faultStep+" "+name+" ") })
	}
	peak := map[string]int64{}
	for _, seen := range e.History {
		switch seen.Kind {
		case kindEnded:
			c.addf("%s ended by itself at %.1f s: %s", seen.Host, float64(seen.At)/1000, seen.What)
		case kindMemory:
			peak[seen.Host] = max(peak[seen.Host], seen.Bytes)
		case kindDelivery:
			at := float64(seen.At) / 1000
			switch {
			case seen.accepted(), seen.Status == 503 && seen.Told:
			case seen.Status == 503:
				c.addf("%s refused a delivery at %.1f s without saying when to try again", seen.Host, at)
			case seen.Status == 401 && seen.within(stepped[seen.Host]): // it cannot know that its own clock is the wrong one
			case seen.Status == 0 && seen.within(down[seen.Host]):
			case seen.What == senderLeft && seen.Took <= answerLimit.Milliseconds(): // an answer would have come in time
			case seen.Status == 0:
				c.addf("%s gave no answer at %.1f s after %d ms: %s", seen.Host, at, seen.Took, seen.What)
			default:
				c.addf("%s answered a valid delivery with %d at %.1f s", seen.Host, seen.Status, at)
			}
			if seen.Status != 0 && seen.Took > (answerLimit+networkSlack).Milliseconds() {
				c.addf("%s took %d ms for an answer at %.1f s", seen.Host, seen.Took, at)
			}
		}
	}
	for _, name := range sortedKeys(peak) {
		if peak[name] > memoryLimit {
			c.addf("%s held %d MiB", name, peak[name]>>20)
		}
	}
	for _, o := range outages(e) {
		if o.Back > recoveryLimit.Seconds() {
			c.addf("after fault %d (%s) nothing was acknowledged for %.1f s", o.Fault, o.What, o.Back)
		}
		if o.Pages > recoveryLimit.Seconds() {
			c.addf("after fault %d (%s) no checkout had its page for %.1f s", o.Fault, o.What, o.Pages)
		}
	}
	return c
}

func judgeForged(e *evidence) []string {
	var c charges
	refused := map[string]int{}
	for _, seen := range e.History {
		if seen.Kind != kindForged {
			continue
		}
		switch {
		case seen.Status == 401:
			refused[seen.What]++
		case seen.Status == 0: // it was down, or cut off
		case seen.What == "no key" && seen.Status == 503:
		default:
			c.addf("%s answered %d to a request with %s at %.1f s", seen.Host, seen.Status, seen.What, float64(seen.At)/1000)
		}
	}
	for _, what := range append(sortedKeys(forgeries), "no key") {
		if refused[what] == 0 {
			c.addf("nothing was tried with %s, so nothing is proved", what)
		}
	}
	for _, id := range e.Forged {
		c.addf("%s is stored, and nobody had the right to", id)
	}
	return c
}

// wholeFrom is when Postgres is whole from a moment on: then, or later.
func wholeFrom(history []entry, at int64) int64 {
	whole := true
	for _, seen := range history {
		switch {
		case seen.At > at && whole:
			return at
		case seen.At > at && seen.Kind == kindWhole:
			return seen.At
		case seen.Kind == kindWhole, seen.Kind == kindAlone:
			whole = seen.Kind == kindWhole
		}
	}
	return at
}

// notAtAll stands for what did not come until the end of the load.
const notAtAll = float64(1 << 20)

// outages are what each fault did to deliveries.
func outages(e *evidence) []outage {
	var accepted, opened []int64
	for _, seen := range e.History {
		switch {
		case seen.accepted():
			accepted = append(accepted, seen.At)
		case seen.Kind == kindOpened:
			opened = append(opened, seen.At)
		}
	}
	next := func(of []int64, at int64) (int64, bool) { // the first of them from a moment on
		i, _ := slices.BinarySearch(of, at)
		if i == len(of) {
			return 0, false
		}
		return of[i], true
	}
	var list []outage
	for _, w := range windows(e.History, 0, func(string) bool { return true }) {
		o := outage{What: w.what, From: float64(w.from) / 1000, To: float64(w.to) / 1000}
		newest := 0 // the fault that began last: a new primary is its doing
		for _, seen := range e.History {
			switch {
			case seen.Kind == kindFault:
				newest = seen.Fault
				if seen.At == w.from && seen.What == w.what {
					o.Fault = seen.Fault
				}
			case seen.Kind == kindPrimary && newest != 0 && newest == o.Fault && seen.At < w.to+recoveryLimit.Milliseconds() && o.Primary == "":
				o.Primary, o.Changed = seen.Host, float64(seen.At-w.from)/1000
			}
		}
		over := w.to
		if o.Primary != "" { // the old one may lie there still, or have been killed and be long up again
			over = w.from + int64(o.Changed*1000)
		}
		over = wholeFrom(e.History, over) // before that nothing can be acknowledged
		o.Whole = float64(over-w.from) / 1000
		for at := w.from; at <= max(w.to, over); {
			then, came := next(accepted, at+1)
			if !came {
				break
			}
			o.Silence = max(o.Silence, float64(then-at)/1000)
			at = then
		}
		o.Back, o.Pages = notAtAll, notAtAll
		if then, came := next(accepted, over); came {
			o.Back = float64(then-over) / 1000
		}
		if then, came := next(opened, over); came {
			o.Pages = float64(then-over) / 1000
		}
		list = append(list, o)
	}
	return list
}

func count(e *evidence) counts {
	n := counts{Links: len(e.Links), Drifted: e.First.Drifted, PeakMemoryMB: map[string]int64{}}
	distinct := map[string]bool{}
	for _, seen := range e.History {
		switch seen.Kind {
		case kindDelivery:
			n.Deliveries++
			switch {
			case seen.accepted():
				n.Accepted++
				distinct[seen.ID] = true
			case seen.Status == 503:
				n.Refused++
			case seen.Status == 0:
				n.Unanswered++
			}
			if seen.Status != 0 {
				n.SlowestMS = max(n.SlowestMS, seen.Took)
			}
		case kindForged:
			if seen.Status == 401 {
				n.Forged++
			}
		case kindAcknowledged:
			n.Requests++
		case kindPrimary:
			n.Failovers++
		case kindMemory:
			n.PeakMemoryMB[seen.Host] = max(n.PeakMemoryMB[seen.Host], seen.Bytes>>20)
		}
	}
	n.Distinct = len(distinct)
	n.Failovers = max(0, n.Failovers-1) // the first was made primary, not switched to
	return n
}
