package console

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
)

type conflictsPage struct {
	page
	pager
	All       bool
	Conflicts []store.Conflict
}

func (c *Console) conflicts(ctx context.Context, r *http.Request) (answer, error) {
	query := r.URL.Query()
	p := conflictsPage{page: c.newPage(r, "Conflicts", "conflicts"), All: query.Get("state") == "all"}
	after, err := numberOf(query.Get("after"))
	if err != nil {
		return answer{}, err
	}
	if p.Conflicts, err = c.config.Store.ListConflictPage(ctx, !p.All, after, listLength+1); err != nil {
		return answer{}, err
	}
	p.Conflicts, p.pager = paged(r, p.Conflicts, func(row store.Conflict) string { return strconv.FormatInt(row.ID, 10) })
	return answer{"conflicts.html", p}, nil
}

type conflictPage struct {
	page
	jobs.ConflictFile
	Deeds []store.AuditedDeed
}

func (c *Console) conflict(ctx context.Context, r *http.Request) (answer, error) {
	id, err := numberIn(r, "id", "conflict")
	if err != nil {
		return answer{}, err
	}
	p := conflictPage{page: c.newPage(r, fmt.Sprintf("Conflict %d", id), "conflicts")}
	if p.ConflictFile, err = jobs.ReadConflict(ctx, c.config.Store, id); err != nil {
		return answer{}, err
	}
	p.Deeds, err = c.config.Store.ListAuditOf(ctx, listLength, fmt.Sprintf("conflict %d", id))
	return answer{"conflict.html", p}, err
}

// resolveConflict settles a conflict one way or the other.
func (c *Console) resolveConflict(ctx context.Context, r *http.Request, word store.Word) (string, error) {
	id, err := numberIn(r, "id", "conflict")
	if err != nil {
		return "", err
	}
	var verdict jobs.Verdict
	switch r.PostForm.Get("verdict") {
	case "link":
		verdict = jobs.Verdict{Link: true, Also: r.PostForm.Get("also") != ""}
	case "dismiss":
	default:
		return "", refused(http.StatusBadRequest, "Say whether to link the two or to dismiss the claim.")
	}
	_, err = jobs.ResolveConflict(ctx, c.config.Store, id, verdict, word)
	return done("/conflicts/"+strconv.FormatInt(id, 10), "resolved"), err
}

type driftPage struct {
	page
	pager
	All    bool
	Cause  string
	Causes []cause
	Drifts []store.LedgerDrift
	Types  []string // that can be swept
}

// cause is a cause of drift with how much of it is open.
type cause struct {
	Name string
	Open int64
}

func (c *Console) drift(ctx context.Context, r *http.Request) (answer, error) {
	query := r.URL.Query()
	p := driftPage{page: c.newPage(r, "Drift", "drift"), All: query.Get("state") == "all", Cause: query.Get("cause"), Types: jobs.MirroredTypes()}
	after, err := numberOf(query.Get("after"))
	if err != nil {
		return answer{}, err
	}
	if p.Drifts, err = c.config.Store.ListDriftPage(ctx, store.DriftFilter{All: p.All, Cause: p.Cause}, after, listLength+1); err != nil {
		return answer{}, err
	}
	if c.config.Demo != nil && c.config.Demo.NoSweeps {
		p.Types = nil
	}
	open, err := c.config.Store.CountOpenDrift(ctx)
	if err != nil {
		return answer{}, err
	}
	for name, n := range open {
		p.Causes = append(p.Causes, cause{name, n})
	}
	slices.SortFunc(p.Causes, func(a, b cause) int { return cmp.Or(cmp.Compare(b.Open, a.Open), cmp.Compare(a.Name, b.Name)) })
	p.Drifts, p.pager = paged(r, p.Drifts, func(row store.LedgerDrift) string { return strconv.FormatInt(row.ID, 10) })
	return answer{"drift.html", p}, nil
}

type oneDriftPage struct {
	page
	Drift store.LedgerDrift
	Open  []store.LedgerDrift // of the same object, field by field
	Past  []store.LedgerDrift
	Deeds []store.AuditedDeed
}

func (c *Console) oneDrift(ctx context.Context, r *http.Request) (answer, error) {
	id, err := numberIn(r, "id", "difference")
	if err != nil {
		return answer{}, err
	}
	p := oneDriftPage{page: c.newPage(r, fmt.Sprintf("Drift %d", id), "drift")}
	var all []store.LedgerDrift
	if p.Drift, all, err = c.config.Store.GetDrift(ctx, id, 2*listLength); err != nil {
		return answer{}, err
	}
	subjects := make([]string, len(all))
	for i, d := range all {
		subjects[i] = driftSubject(d.ID)
		if d.ResolvedAt == nil {
			p.Open = append(p.Open, d)
		} else {
			p.Past = append(p.Past, d)
		}
	}
	p.Deeds, err = c.config.Store.ListAuditOf(ctx, listLength, subjects...)
	return answer{"onedrift.html", p}, err
}

func driftSubject(id int64) string { return fmt.Sprintf("drift %d", id) }

// resolveDrift closes what is open of an object in the operator's words.
func (c *Console) resolveDrift(ctx context.Context, r *http.Request, word store.Word) (string, error) {
	id, err := numberIn(r, "id", "difference")
	if err != nil {
		return "", err
	}
	deed := store.Deed{Actor: word.Actor, Door: word.Door, Action: "resolve_drift", Subject: driftSubject(id), Reason: word.Reason}
	return done("/drift/"+strconv.FormatInt(id, 10), "resolved"), c.config.Store.ResolveDrift(ctx, id, deed)
}

// sweep asks for a sweep of one of Polar's lists.
func (c *Console) sweep(ctx context.Context, r *http.Request, word store.Word) (string, error) {
	if c.config.Demo != nil && c.config.Demo.NoSweeps {
		return "", refused(http.StatusConflict, "This fake Polar has begun anew and knows nothing of what was sold before: a sweep would delete it here.")
	}
	objectType := r.PostForm.Get("type")
	if !slices.Contains(jobs.MirroredTypes(), objectType) {
		return "", refused(http.StatusNotFound, "There is no list of type %q.", objectType)
	}
	return done("/drift?state=all", "sweep"), jobs.AskForSweep(ctx, c.config.Store, objectType, word)
}

type auditPage struct {
	page
	pager
	Deeds []store.AuditedDeed
}

func (c *Console) audit(ctx context.Context, r *http.Request) (answer, error) {
	p := auditPage{page: c.newPage(r, "Audit", "audit")}
	after, err := numberOf(r.URL.Query().Get("after"))
	if err != nil {
		return answer{}, err
	}
	if p.Deeds, err = c.config.Store.ListAudit(ctx, after, listLength+1); err != nil {
		return answer{}, err
	}
	p.Deeds, p.pager = paged(r, p.Deeds, func(row store.AuditedDeed) string { return strconv.FormatInt(row.ID, 10) })
	return answer{"audit.html", p}, nil
}
