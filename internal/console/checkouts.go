package console

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// requestStates are those of a checkout request, in the order in which it goes through them.
var requestStates = []string{
	store.RequestQueued, store.RequestCreating, store.RequestOpen, store.RequestConfirmed, store.RequestSucceeded, store.RequestExpired, store.RequestFailed,
}

type requestsPage struct {
	page
	pager
	State    string // one of requestStates, stuck, or empty for all
	States   []string
	Requests []store.ListedRequest
}

func (c *Console) requests(ctx context.Context, r *http.Request) (answer, error) {
	query := r.URL.Query()
	p := requestsPage{page: c.newPage(r, "Checkouts", "checkouts"), State: query.Get("state"), States: append([]string{"stuck"}, requestStates...)}
	p.Query = strings.TrimSpace(query.Get("q"))
	if p.State != "" && !slices.Contains(p.States, p.State) {
		return answer{}, refused(http.StatusBadRequest, "There is no state %q.", p.State)
	}
	at, err := placeOf(query.Get("after"))
	if err != nil {
		return answer{}, err
	}
	filter := store.RequestFilter{Text: p.Query, Stuck: p.State == "stuck", State: p.State}
	if p.Requests, err = c.config.Store.ListRequests(ctx, filter, at, listLength+1); err != nil {
		return answer{}, err
	}
	p.Requests, p.pager = paged(r, p.Requests, func(q store.ListedRequest) string { return placeText(store.Place{At: q.CreatedAt, ID: q.ID}) })
	return answer{"checkouts.html", p}, nil
}

type requestPage struct {
	page
	Request  store.CheckoutRequest
	PayURL   string // empty once nobody can pay there
	Params   string
	CanRetry bool // it failed or expired: it may be asked for anew
	CanTry   bool // it waits for its next try
	Deeds    []store.AuditedDeed
}

func (c *Console) request(ctx context.Context, r *http.Request) (answer, error) {
	id, err := idOf(r, "checkout request")
	if err != nil {
		return answer{}, err
	}
	p := requestPage{page: c.newPage(r, "Checkout request", "checkouts")}
	if p.Request, err = c.config.Store.GetCheckoutRequest(ctx, id); err != nil {
		return answer{}, err
	}
	var params bytes.Buffer
	if err := json.Indent(&params, p.Request.Params, "", "  "); err != nil {
		return answer{}, fmt.Errorf("reading the params of checkout request %s: %w", id, err)
	}
	if p.Visitor.Operator { // they may name the buyer
		p.Params = params.String()
	}
	if p.Deeds, err = c.config.Store.ListAuditOf(ctx, listLength, "checkout_request "+id.String()); err != nil {
		return answer{}, err
	}
	if p.Request.URL != nil {
		p.PayURL = payURL(p.Request.State, *p.Request.URL, p.Request.ExpiresAt, time.Now())
	}
	switch p.Request.State {
	case store.RequestQueued, store.RequestCreating:
		p.CanTry = true
		c.pending(&p.page)
	case store.RequestConfirmed:
		c.pending(&p.page)
	case store.RequestFailed, store.RequestExpired:
		p.CanRetry = true
	}
	return answer{"request.html", p}, nil
}

// retryRequest asks anew for what failed or expired.
func (c *Console) retryRequest(ctx context.Context, r *http.Request, word store.Word) (string, error) {
	id, err := idOf(r, "checkout request")
	if err != nil {
		return "", err
	}
	again, err := jobs.AskAgain(ctx, c.config.Store, id, word)
	return done("/requests/"+again.String(), "asked"), err
}

// tryRequest lets a worker try now what would wait for its next try.
func (c *Console) tryRequest(ctx context.Context, r *http.Request, word store.Word) (string, error) {
	id, err := idOf(r, "checkout request")
	if err != nil {
		return "", err
	}
	return done("/requests/"+id.String(), "woken"), jobs.TryNow(ctx, c.config.Store, id, word)
}
