package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
)

type eventsPage struct {
	page
	pager
	Type, State string
	From, Until string // as the form has them
	Types       []string
	Events      []store.ListedEvent
	Here        string // this page's address, for the way back
}

func (c *Console) events(ctx context.Context, r *http.Request) (answer, error) {
	query := r.URL.Query()
	p := eventsPage{
		page: c.newPage(r, "Events", "events"), Type: strings.TrimSpace(query.Get("type")), State: query.Get("state"),
		From: query.Get("from"), Until: query.Get("until"), Types: jobs.EventTypes(), Here: r.URL.RequestURI(),
	}
	p.Query = strings.TrimSpace(query.Get("q"))
	switch p.State {
	case "", store.EventReceived, store.EventFailed:
	default:
		return answer{}, refused(http.StatusBadRequest, "Events can be looked for as received or failed; all others are applied.")
	}
	filter := store.EventFilter{Text: p.Query, Type: p.Type, State: p.State}
	var err error
	if filter.From, err = timeOf(p.From); err != nil {
		return answer{}, err
	}
	if filter.Until, err = timeOf(p.Until); err != nil {
		return answer{}, err
	}
	after, err := numberOf(query.Get("after"))
	if err != nil {
		return answer{}, err
	}
	if p.Events, err = c.config.Store.ListEventPage(ctx, filter, after, listLength+1); err != nil {
		return answer{}, err
	}
	p.Events, p.pager = paged(r, p.Events, func(e store.ListedEvent) string { return strconv.FormatInt(e.Seq, 10) })
	return answer{"events.html", p}, nil
}

// timeOf reads a time as the browser's own field gives it, which is taken as UTC.
func timeOf(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339, "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, refused(http.StatusBadRequest, "%q is no time: give one such as 2026-11-24T15:04, in UTC.", text)
}

type eventPage struct {
	page
	Event    store.OneEvent
	Document string // as JSON
	Masked   bool   // without what is personal
	Unread   string // why there is no document; empty: there is
	Deeds    []store.AuditedDeed
}

func (c *Console) event(ctx context.Context, r *http.Request) (answer, error) {
	p, err := c.readEvent(ctx, r)
	if err != nil {
		return answer{}, err
	}
	p.Masked = true
	switch p.Document, err = c.config.Store.GetMaskedEvent(ctx, p.Event.Seq); {
	case errors.Is(err, store.ErrNotFound):
		p.Unread = "The body is no longer kept: it is older than EVENT_RETENTION."
	case errors.Is(err, store.ErrRefused):
		p.Unread = "Postgres cannot read the body as JSON, so that nothing in it can be masked. It can be shown as Polar sent it."
	case err != nil:
		return answer{}, err
	}
	return answer{"event.html", p}, nil
}

func (c *Console) readEvent(ctx context.Context, r *http.Request) (p eventPage, err error) {
	seq, err := numberIn(r, "seq", "event")
	if err != nil {
		return p, err
	}
	p.page = c.newPage(r, "Event", "events")
	if p.Event, err = c.config.Store.GetEvent(ctx, seq); err != nil {
		return p, err
	}
	if !p.Visitor.Operator {
		p.Event.Error = "" // it may quote what Polar sent
	}
	p.Title = p.Event.Type + " · truenorth"
	p.Deeds, err = c.config.Store.ListAuditOf(ctx, listLength, eventSubject(seq))
	return p, err
}

func eventSubject(seq int64) string { return fmt.Sprintf("event %d", seq) }

// document shows an event as Polar sent it, and notes who looked.
func (c *Console) document(w http.ResponseWriter, r *http.Request) {
	word, err := c.word(w, r)
	if err != nil {
		c.fail(w, r, err)
		return
	}
	c.show(func(ctx context.Context, r *http.Request) (answer, error) {
		seq, err := numberIn(r, "seq", "event")
		if err != nil {
			return answer{}, err
		}
		deed := store.Deed{Actor: word.Actor, Door: word.Door, Action: "show_event", Subject: eventSubject(seq), Reason: word.Reason}
		body, err := c.config.Store.GetEventBody(ctx, seq, deed)
		if err != nil {
			return answer{}, err
		}
		p, err := c.readEvent(ctx, r)
		p.Document = body
		var indented bytes.Buffer
		if json.Indent(&indented, []byte(body), "", "  ") == nil {
			p.Document = indented.String()
		}
		return answer{"event.html", p}, err
	})(w, r)
}

// replay applies chosen events again, now.
func (c *Console) replay(ctx context.Context, r *http.Request, word store.Word) (string, error) {
	var seqs []int64
	for _, text := range r.PostForm["seq"] {
		seq, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return "", refused(http.StatusBadRequest, "%q is no event.", text)
		}
		seqs = append(seqs, seq)
	}
	if len(seqs) == 0 {
		return "", refused(http.StatusBadRequest, "Choose one event at least.")
	}
	report, err := jobs.ReplayEvents(ctx, c.config.Store, c.config.Logger, seqs, word)
	return done(back(r, "/events"), "replayed", report.Events, report.Failed, report.NotKept), err
}

// back is where a form says it came from, if that is a page of ours.
func back(r *http.Request, otherwise string) string {
	u, err := url.Parse(r.PostForm.Get("back"))
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "//") || strings.Contains(u.Path, `\`) {
		return otherwise
	}
	query := u.Query()
	query.Del("done")
	query.Del("n")
	return (&url.URL{Path: u.Path, RawQuery: query.Encode()}).String()
}

// retryFailed gives failed events new jobs.
func (c *Console) retryFailed(ctx context.Context, r *http.Request, word store.Word) (string, error) {
	eventType := strings.TrimSpace(r.PostForm.Get("type"))
	n, err := jobs.RetryFailedEvents(ctx, c.config.Store, eventType, word)
	query := url.Values{"state": {store.EventFailed}}
	if eventType != "" {
		query.Set("type", eventType)
	}
	return done("/events?"+query.Encode(), "retried", int64(n)), err
}
