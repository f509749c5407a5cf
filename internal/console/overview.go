package console

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/truenorth-dev/truenorth/internal/store"
)

type overviewPage struct {
	page
	Status    store.Status
	Lag       store.Lag
	Sweep     sweepSays
	Stuck     int
	Attention []attention
	Plots     []plot
	RatesAt   time.Time // zero: the plots were counted just now
	Requests  []store.ListedRequest
	Links     []linkRow
	Conflicts []store.Conflict
	Events    []store.ListedEvent
	Shop      *shop // nil but in the demo
	Paid      *news // what became of the checkout that a buyer comes back from; nil where none does
	Limit     int   // of each list
}

// linkRow is a link with the id of its element: linked-<local user id>.
type linkRow struct {
	store.RecentLink
	ElementID string // empty for all but the newest link of a user: an id is unique within a page
}

// hoursShown is how far back the plots go.
const hoursShown = 24

func (c *Console) overview(ctx context.Context, r *http.Request) (answer, error) {
	p := overviewPage{page: c.newPage(r, "Overview", "overview"), Limit: shortList}
	p.Title = "truenorth"
	err := c.readOverview(ctx, &p)
	if err == nil && c.config.Demo != nil {
		err = c.readDemo(ctx, &p, r.URL.Query().Get("paid"))
	}
	return answer{"overview.html", p}, err
}

func (c *Console) readOverview(ctx context.Context, p *overviewPage) error {
	s := c.config.Store
	var err error
	if p.Status, err = s.ReadStatus(ctx); err != nil {
		return err
	}
	if p.Lag, err = s.ReadLag(ctx); err != nil {
		return err
	}
	stuck, err := s.ListRequests(ctx, store.RequestFilter{Stuck: true}, store.Place{}, mostStuck)
	if err != nil {
		return err
	}
	p.Stuck = len(stuck)
	if p.Requests, err = s.ListRequests(ctx, store.RequestFilter{}, store.Place{}, shortList); err != nil {
		return err
	}
	links, err := s.ListRecentLinks(ctx, shortList)
	if err != nil {
		return err
	}
	p.Links = linkRows(links)
	if p.Conflicts, err = s.ListConflictPage(ctx, true, 0, shortList); err != nil {
		return err
	}
	if p.Events, err = s.ListEventPage(ctx, store.EventFilter{}, 0, shortList); err != nil {
		return err
	}
	c.plot(ctx, p)
	p.Sweep = sweepOf(p.Status.LastRuns)
	p.Attention = needs(*p)
	if p.Status.RequestsWaiting > 0 || p.Status.Events[store.EventReceived] > 0 {
		c.pending(&p.page)
	}
	return nil
}

const mostStuck = 1000

// plotPatience is how long the page waits for its plots; without them it tells all the same what is out of order.
const plotPatience = 3 * time.Second

func (c *Console) plot(ctx context.Context, p *overviewPage) {
	ctx, cancel := context.WithTimeout(ctx, plotPatience)
	defer cancel()
	rates, at, err := c.config.Store.ReadRates(ctx, hoursShown)
	if err != nil {
		c.config.Logger.WarnContext(ctx, "counting for the plots failed", slog.String("error", err.Error()))
		return
	}
	if time.Since(at) > time.Second {
		p.RatesAt = at
	}
	p.Plots = []plot{
		newPlot("Events received", rates.FirstAt, series{"received", "events", rates.Events}),
		newPlot("Jobs", rates.FirstAt, series{"completed", "jobs", rates.Jobs}, series{"failed for good", "failed", rates.Failed}),
	}
}

func linkRows(links []store.RecentLink) []linkRow {
	rows := make([]linkRow, len(links))
	seen := map[string]bool{}
	for i, l := range links {
		rows[i].RecentLink = l
		if !seen[l.LocalUserID] {
			rows[i].ElementID = "linked-" + l.LocalUserID
		}
		seen[l.LocalUserID] = true
	}
	return rows
}

// sweepSays is what the last sweeps say.
type sweepSays struct {
	FinishedAt *time.Time // the oldest of the last sweeps of each type; nil: none ended well
	Failed     []string   // types whose last sweep failed
}

func sweepOf(runs []store.ReconcileRun) (says sweepSays) {
	for _, run := range runs {
		switch {
		case run.State == store.RunFailed:
			says.Failed = append(says.Failed, run.ObjectType)
		case run.FinishedAt != nil && (says.FinishedAt == nil || run.FinishedAt.Before(*says.FinishedAt)):
			says.FinishedAt = run.FinishedAt
		}
	}
	return says
}

// attention is something that a person should look at.
type attention struct {
	Text string
	Link string // to the list that shows it
}

// needs lists what does not go away by itself.
func needs(p overviewPage) []attention {
	var list []attention
	s := p.Status
	if s.WorkersAlive == 0 {
		list = append(list, attention{"no worker is alive", "#numbers"})
	}
	switch e := s.Endpoint; {
	case e == nil: // nobody has looked yet
	case e.State == store.EndpointDark:
		list = append(list, attention{"Polar does not send what it should", "#endpoint"})
	case e.State == store.EndpointUnknown:
		list = append(list, attention{"it cannot be told whether Polar sends", "#endpoint"})
	}
	if n := s.OpenConflicts; n > 0 {
		list = append(list, attention{plural(n, "open conflict"), "/conflicts"})
	}
	if n := s.Events[store.EventFailed]; n > 0 {
		list = append(list, attention{plural(n, "failed event"), "/events?state=failed"})
	}
	if n := s.OpenDrift; n > 0 {
		list = append(list, attention{plural(n, "difference") + " from Polar", "/drift"})
	}
	if p.Stuck > 0 {
		list = append(list, attention{plural(int64(p.Stuck), "stuck checkout"), "/checkouts?state=stuck"})
	}
	if len(p.Sweep.Failed) > 0 {
		list = append(list, attention{plural(int64(len(p.Sweep.Failed)), "failed sweep"), "#sweeps"})
	}
	return list
}
