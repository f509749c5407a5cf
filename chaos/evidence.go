package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/truenorth-dev/truenorth/internal/mirrorcheck"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// evidence is all that the judge looks at: what was seen from outside of the faults, and what is in the tables and at Polar in
// the end.
type evidence struct {
	Run         facts                 `json:"run"`
	Plan        schedule              `json:"plan"`
	History     []entry               `json:"-"`           // in a file of its own
	Sent        []string              `json:"sent"`        // webhook ids of all that Polar ever sent
	Events      []storedEvent         `json:"events"`      // polar.event
	Requests    []mirrorcheck.Request `json:"requests"`    // polar.checkout_request
	Sessions    []mirrorcheck.Session `json:"sessions"`    // Polar's
	Differences []string              `json:"differences"` // of mirror and Polar, after the first comparison
	First       comparison            `json:"first"`
	Second      comparison            `json:"second"`
	Links       []link                `json:"links"`
	LinkHistory []pastLink            `json:"link_history"`
	Customers   []customer            `json:"customers"` // the mirror's, that live
	Paid        []paidCheckout        `json:"paid"`
	Told        []string              `json:"told"`   // requests that the change feed told to be paid, each time
	Forged      []string              `json:"forged"` // what is stored though nobody had the right to
}

type storedEvent struct {
	ID    string `json:"id"`
	State string `json:"state"`
	Error string `json:"error,omitempty"`
}

// comparison is how much one reconcile found.
type comparison struct {
	Drifted int64  `json:"drifted"`
	Benign  int64  `json:"benign"`
	Failed  string `json:"failed,omitempty"`
}

// link is who a customer is now.
type link struct {
	Customer string `json:"customer"`
	User     string `json:"user"`
	Basis    string `json:"basis"`
	Checkout string `json:"checkout,omitempty"`
}

// pastLink is a row of the links' history.
type pastLink struct {
	link

	Ended  bool   `json:"ended"`
	Reason string `json:"reason,omitempty"`
}

type customer struct {
	ID         string `json:"id"`
	ExternalID string `json:"external_id,omitempty"`
}

// paidCheckout is a session that Polar says was paid, and for whom it was created.
type paidCheckout struct {
	Checkout string `json:"checkout"`
	Customer string `json:"customer"`
	User     string `json:"user"`
}

// The files of a run's folder from which it can be judged again.
const (
	historyFile  = "history.jsonl"
	evidenceFile = "evidence.json"
)

// readEvidence reads what a run left in its folder.
func readEvidence(dir string) (*evidence, error) {
	text, err := os.ReadFile(filepath.Join(dir, evidenceFile))
	if err != nil {
		return nil, fmt.Errorf("reading the evidence of a run: %w", err)
	}
	var e evidence
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, fmt.Errorf("reading the evidence of a run: %w", err)
	}
	file, err := os.Open(filepath.Join(dir, historyFile))
	if err != nil {
		return nil, fmt.Errorf("opening the log of a run: %w", err)
	}
	defer file.Close()
	e.History, err = readHistory(file)
	return &e, err
}

// collect compares twice and reads everything.
func (r *run) collect(ctx context.Context) (*evidence, error) {
	e := &evidence{Run: r.facts(ctx), Plan: r.plan, History: r.history.all()}
	compare := func() (c comparison) {
		var err error
		if c.Drifted, c.Benign, err = r.reconcile(ctx); err != nil {
			c.Failed = err.Error()
		}
		return c
	}
	e.First = compare()
	r.sayf("the first comparison with Polar found %d differences and %d benign ones", e.First.Drifted, e.First.Benign)
	if err := r.awaitQuiet(ctx); err != nil {
		r.sayf("NOT QUIET: %v", err)
	}
	pause(ctx, 2*time.Second) // Polar's Date has whole seconds: two reads within one cannot be told apart
	e.Second = compare()
	r.sayf("the second found %d and %d", e.Second.Drifted, e.Second.Benign)

	for _, sent := range r.fake.Events() {
		e.Sent = append(e.Sent, sent.ID)
	}
	var err error
	if e.Sessions, err = mirrorcheck.ReadSessions(r.fake.Checkouts()); err != nil {
		return nil, err
	}
	return e, errors.Join(r.readTables(ctx, e), r.compareObjects(ctx, e))
}

func (r *run) readTables(ctx context.Context, e *evidence) error {
	return errors.Join(
		read(ctx, r, &e.Events, "select jsonb_build_object('id', webhook_id, 'state', state, 'error', error) from polar.event"),
		read(ctx, r, &e.Requests, "select to_jsonb(r) from polar.checkout_request r"),
		read(ctx, r, &e.Links, "select jsonb_build_object('customer', customer_id, 'user', local_user_id, 'basis', basis, 'checkout', checkout_id) from polar.customer_link"),
		read(ctx, r, &e.LinkHistory, `select jsonb_build_object('customer', customer_id, 'user', local_user_id, 'basis', basis, 'ended', ended_at is not null, 'reason', end_reason)
			from polar.customer_link_history order by id`),
		read(ctx, r, &e.Customers, "select jsonb_build_object('id', id, 'external_id', external_id) from polar.customer where deleted_at is null"),
		read(ctx, r, &e.Paid, `select jsonb_build_object('checkout', k.id, 'customer', k.customer_id, 'user', q.external_customer_id)
			from polar.checkout k join polar.checkout_request q on q.checkout_id = k.id where k.status = 'succeeded'`),
		read(ctx, r, &e.Told, "select to_jsonb(request_id) from polar.change where kind = 'checkout_succeeded'"),
		read(ctx, r, &e.Forged, fmt.Sprintf(`select to_jsonb(webhook_id) from polar.event where webhook_id like '%[1]s%%' union all
			select to_jsonb(key) from polar.checkout_request where key like '%[1]s%%'`, forgedPrefix)),
	)
}

// read reads a query of one column of JSON.
func read[T any](ctx context.Context, r *run, into *[]T, sql string) error {
	rows, err := r.load.pool.Query(ctx, sql)
	if err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	*into, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (value T, err error) {
		var text []byte
		if err := row.Scan(&text); err != nil {
			return value, fmt.Errorf("reading a row: %w", err)
		}
		if err := json.Unmarshal(text, &value); err != nil {
			return value, fmt.Errorf("reading %s: %w", text, err)
		}
		return value, nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// compareObjects holds the mirror against the fake, type by type.
func (r *run) compareObjects(ctx context.Context, e *evidence) error {
	for _, objectType := range polarfake.ObjectTypes {
		var documents []json.RawMessage
		if err := read(ctx, r, &documents, fmt.Sprintf("select doc from polar.%q where deleted_at is null", objectType)); err != nil {
			return err
		}
		here := make(map[string]json.RawMessage, len(documents))
		for _, document := range documents {
			var named struct {
				ID string `json:"id"`
			}
			if err := json.Unmarshal(document, &named); err != nil {
				return fmt.Errorf("reading a document of the mirror: %w", err)
			}
			here[named.ID] = document
		}
		e.Differences = append(e.Differences, mirrorcheck.Objects(objectType, r.fake.Objects(objectType), here)...)
	}
	return nil
}
