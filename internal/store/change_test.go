package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// noWalk keeps the teller from comparing users of whom nothing is due, which would hide that something was missed.
const noWalk = 1000 * time.Hour

// What is to be equal once all is told.
const (
	accessNow = `select distinct concat_ws(' ', local_user_id, kind, object_id, product_id, benefit_id, customer_id, subscription_id, order_id, until) from polar.user_access order by 1`
	told      = `select concat_ws(' ', local_user_id, kind, object_id, product_id, benefit_id, customer_id, subscription_id, order_id, until) from polar.told_access order by 1`
	folded    = `
		select concat_ws(' ', c.local_user_id, c.access_kind, c.object_id, c.product_id, c.benefit_id, c.customer_id, c.subscription_id, c.order_id, c.until)
		  from (select distinct on (local_user_id, access_kind, object_id) * from polar.change
		         where kind in ('access_gained', 'access_lost') order by local_user_id, access_kind, object_id, id desc) c
		 where c.kind = 'access_gained' order by 1`
)

var disturbances = flag.Int("disturbances", 250, "how many changes TestWhateverIsWrittenIsTold makes to each of its databases")

// Every path from what is written to whom it concerns: one path forgotten, and somebody is told nothing.
func TestWhateverIsWrittenIsTold(t *testing.T) {
	t.Parallel()
	for number := range uint64(4) {
		t.Run(fmt.Sprintf("data %d", number), func(t *testing.T) {
			t.Parallel()
			d := newSeed(t)
			d.skipWalk()
			random := rand.New(rand.NewPCG(number, 11))
			d.Sow(anyLines(random))
			d.wantAllTold("sown")
			news := 0
			for range *disturbances {
				var what string
				err := d.InTx(t.Context(), func(tx *store.Tx) (err error) {
					what, err = d.disturb(t.Context(), random, tx)
					return err
				})
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				news += d.wantAllTold(what)
				if t.Failed() {
					return
				}
			}
			if news < 100 {
				t.Errorf("%d changes prove little", news)
			}
		})
	}
}

// skipWalk has the walk behind it, for as long as noWalk.
func (d *seed) skipWalk() {
	d.t.Helper()
	d.Exec("skipping the walk", "update polar.change_teller set walked_at = now()")
}

// wantAllTold tells all that is due and holds the feed against user_access, all at one moment. It gives how much was told.
func (d *seed) wantAllTold(after string) (news int) {
	d.t.Helper()
	err := pgx.BeginFunc(d.t.Context(), d.Pool(), func(tx pgx.Tx) error {
		for more := true; more; {
			var n int
			if err := tx.QueryRow(d.t.Context(), "select told, more from polar.tell_changes(7, $1)", noWalk).Scan(&n, &more); err != nil {
				return err
			}
			news += n
		}
		read := func(sql string) []string {
			rows, err := tx.Query(d.t.Context(), sql)
			if err != nil {
				d.t.Fatal(err)
			}
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				d.t.Fatal(err)
			}
			for i := range lines {
				for id, name := range d.Names() {
					lines[i] = strings.ReplaceAll(lines[i], id.String(), name)
				}
			}
			return lines
		}
		want := read(accessNow)
		if diff := cmp.Diff(want, read(told)); diff != "" {
			d.t.Errorf("%s: what was told is not what is so (-user_access +told):\n%s", after, diff)
		}
		if diff := cmp.Diff(want, read(folded)); diff != "" {
			d.t.Errorf("%s: the feed does not add up (-user_access +feed):\n%s", after, diff)
		}
		return nil
	})
	if err != nil {
		d.t.Fatalf("%s: telling: %v", after, err)
	}
	return news
}

// The whole of what the feed promises, while transactions stay open and are taken back, tellers come in each other's way and
// are killed, and readers are always at the newest: each reads every change once and in one order, and they add up.
func TestAReaderAtTheNewestMissesNothingHoweverTransactionsInterleave(t *testing.T) {
	t.Parallel()
	for number := range uint64(2) {
		t.Run(fmt.Sprintf("play %d", number), func(t *testing.T) {
			t.Parallel()
			d := newSeed(t)
			d.skipWalk()
			d.Sow(anyLines(rand.New(rand.NewPCG(number, 12))))
			play := &play{seed: d, told: make(chan struct{})}
			play.run(number)
			d.wantAllTold("in the end")
			want := column[int64](t, d.Store, "select id from polar.change order by id")
			for reader, got := range play.read {
				if !slices.Equal(got, want) {
					t.Errorf("reader %d read %d changes, there are %d: %s", reader, len(got), len(want), cmp.Diff(want, got))
				}
			}
			if len(want) < 20 || play.late.Load() < 20 || play.killed.Load() == 0 {
				t.Errorf("%d changes, %d transactions that were open while others were told, %d tellers killed prove little", len(want), play.late.Load(), play.killed.Load())
			}
		})
	}
}

// play is one interleaving of all who have to do with the feed.
type play struct {
	*seed

	told    chan struct{} // a value for each turn of a teller, for whoever waits
	written atomic.Bool
	allTold atomic.Bool
	news    atomic.Int64 // changes that were told
	late    atomic.Int64
	killed  atomic.Int64
	read    [2][]int64
}

func (p *play) run(number uint64) {
	p.t.Helper()
	ctx := p.t.Context()
	tellers := storetest.As(p.t, p.Store, store.RoleWorker)
	var writing, telling, reading errgroup.Group
	for writer := range 4 {
		random := rand.New(rand.NewPCG(number, uint64(writer)))
		writing.Go(func() error {
			// Long enough to prove something, however little of it the machine lets happen at once.
			for turn := 0; turn < 50 || p.news.Load() < 30 && turn < 1000; turn++ {
				if err := p.write(ctx, random); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for range 2 {
		telling.Go(func() error { return p.tell(ctx, tellers) })
	}
	for reader := range p.read {
		random := rand.New(rand.NewPCG(number, uint64(100+reader)))
		reading.Go(func() (err error) {
			p.read[reader], err = p.follow(ctx, random)
			return err
		})
	}
	errs := []error{writing.Wait()}
	p.written.Store(true)
	errs = append(errs, telling.Wait())
	p.allTold.Store(true)
	if err := errors.Join(append(errs, reading.Wait())...); err != nil {
		p.t.Fatal(err)
	}
}

// write makes one transaction, which stays open for some turns of the tellers, and may be taken back.
func (p *play) write(ctx context.Context, random *rand.Rand) error {
	back := errors.New("taken back")
	waited := random.IntN(4)
	err := p.InTx(ctx, func(tx *store.Tx) error {
		for range 1 + random.IntN(3) {
			if what, err := p.disturb(ctx, random, tx); err != nil {
				return fmt.Errorf("%s: %w", what, store.Interpret(err))
			}
		}
		for range waited {
			<-p.told
		}
		if random.IntN(5) == 0 {
			return back
		}
		return nil
	})
	if err == nil && waited > 1 {
		p.late.Add(1)
	}
	if errors.Is(err, back) || errors.Is(err, store.ErrUnavailable) { // a deadlock: as good as taken back
		return nil
	}
	return err
}

// tell tells until all is, and has itself killed now and then.
func (p *play) tell(ctx context.Context, tellers *store.Store) error {
	admin := storetest.Admin(p.t, p.Store)
	for turn := 0; ; turn++ {
		over := p.written.Load()
		if turn%20 == 19 && p.killed.Load() < 8 {
			var killed int64
			if err := admin.Pool().QueryRow(ctx, `select count(pg_terminate_backend(pid)) from pg_stat_activity
				where datname = current_database() and state = 'active' and query like '%polar.tell_changes%' and query not like '%pg_terminate_backend%'`).Scan(&killed); err != nil {
				return err
			}
			p.killed.Add(killed)
		}
		told, _, err := tellers.TellChanges(ctx, 5, noWalk)
		if err != nil && !errors.Is(err, store.ErrUnavailable) {
			return err
		}
		p.news.Add(int64(told))
		select {
		case p.told <- struct{}{}:
		default:
		}
		if !over {
			continue
		}
		var due int64
		if err := admin.Pool().QueryRow(ctx, "select count(*) from polar.change_due").Scan(&due); err != nil || due == 0 {
			return err
		}
	}
}

// follow reads the feed to its end, always from the newest that was read.
func (p *play) follow(ctx context.Context, random *rand.Rand) (ids []int64, err error) {
	cursor := int64(0)
	for {
		over := p.allTold.Load()
		page, err := p.ReadChanges(ctx, cursor, 1+random.IntN(5))
		if err != nil {
			return ids, err
		}
		var changes []struct{ ID int64 }
		if err := json.Unmarshal(page.Changes, &changes); err != nil {
			return ids, err
		}
		for _, change := range changes {
			ids, cursor = append(ids, change.ID), change.ID
		}
		if over && len(changes) == 0 {
			return ids, nil
		}
	}
}

// disturb changes one thing or another in a transaction, and says what.
func (d *seed) disturb(ctx context.Context, r *rand.Rand, tx *store.Tx) (what string, err error) {
	pick := func(choices ...string) string { return choices[r.IntN(len(choices))] }
	numbered := func(prefix string, n int) string { return fmt.Sprintf("%s%d", prefix, 1+r.IntN(n)) }
	sql := func(statement string, args ...any) (string, error) {
		_, err := tx.Pgx().Exec(ctx, statement, args...)
		return fmt.Sprint(statement, " ", args), err
	}
	switch n := r.IntN(100); {
	case n < 60:
		line := anyObject(r)
		kind, object := d.Object(line)
		_, err := tx.MirrorObjects(ctx, kind, store.FromEvent, []store.Object{object}, false)
		return line, err
	case n < 68: // as no program of ours does
		table, prefix, _ := strings.Cut(pick("subscription s", "order o", "benefit_grant g", "customer_seat t", "member m", "customer c", "refund r", "benefit b"), " ")
		return sql(fmt.Sprintf("delete from polar.%q where id = $1", table), d.ID(numbered(prefix, 8)))
	case n < 76:
		return sql(`insert into polar.customer_link (customer_id, local_user_id, basis) values ($1, $2, 'manual')
			on conflict (customer_id) do update set local_user_id = excluded.local_user_id`, d.ID(numbered("c", 6)), numbered("u", 5))
	case n < 82:
		return sql("delete from polar.customer_link where customer_id = $1", d.ID(numbered("c", 6)))
	case n < 90:
		if r.IntN(8) == 0 {
			return sql("delete from polar.local_user_row where id = $1", numbered("u", 5))
		}
		return sql(`insert into polar.local_user (id, deleted_at) values ($1, $2::timestamptz) on conflict (id) do update set deleted_at = excluded.deleted_at`,
			numbered("u", 5), map[bool]any{true: "2026-01-01T00:00:00Z"}[r.IntN(4) == 0])
	case n < 92:
		return sql(`update polar.organization set doc = jsonb_set(doc, '{subscription_settings,benefit_revocation_grace_period}', to_jsonb($1::integer))`, r.IntN(3)*5)
	case n < 96:
		return sql(`update polar.checkout_request set params = params || jsonb_build_object('external_customer_id', $2::text), checkout_id = $3 where id = $1`,
			d.ID("request "+numbered("k", 8)), numbered("u", 5), d.ID(numbered("k", 9)))
	default:
		return sql(pick("delete from polar.checkout_request where id = $1",
			`insert into polar.checkout_request (id, params, state, checkout_id, url) values ($1, '{"external_customer_id": "u1"}', 'succeeded', $1, '-') on conflict do nothing`),
			d.ID("request "+numbered("k", 8)))
	}
}

// anyObject is a line of a seed that gives one of the objects of anyLines another state.
func anyObject(r *rand.Rand) string {
	pick := func(choices ...string) string { return choices[r.IntN(len(choices))] }
	numbered := func(prefix string, n int) string { return fmt.Sprintf("%s%d", prefix, 1+r.IntN(n)) }
	checkout := func() string { return pick("null", numbered("k", 8)) }
	purchase := func() string {
		return pick("subscription_id=", "order_id=") + pick(numbered("s", 12), numbered("o", 12))
	}
	deleted := func() string { return pick("false", "false", "false", "false", "true") }
	switch r.IntN(9) {
	case 0:
		return fmt.Sprintf("subscription %s customer_id=%s checkout_id=%s product_id=%s seats=%s status=%s ends_at=%s past_due_at=%s cancel_at_period_end=%s current_period_end=%s deleted=%s",
			numbered("s", 12), numbered("c", 6), checkout(), numbered("p", 3), pick("null", "4"), pick("active", "active", "trialing", "past_due", "canceled"), pick("null", "-1h", "+1h"),
			pick("null", "-1d", "-9d"), pick("true", "false"), pick("-1h", "+2h"), deleted())
	case 1:
		return fmt.Sprintf("order %s customer_id=%s checkout_id=%s subscription_id=%s seats=%s status=%s paid=%s deleted=%s",
			numbered("o", 12), numbered("c", 6), checkout(), pick("null", "null", numbered("s", 12)), pick("null", "4"), pick("paid", "refunded", "pending"), pick("true", "true", "false"), deleted())
	case 2:
		return fmt.Sprintf("refund %s order_id=%s status=%s revoke_benefits=%s", numbered("r", 8), numbered("o", 12), pick("succeeded", "pending", "failed"), pick("true", "false"))
	case 3, 4:
		return fmt.Sprintf("benefit_grant %s customer_id=%s member_id=%s benefit_id=%s is_granted=%s is_revoked=%s %s deleted=%s",
			numbered("g", 20), numbered("c", 6), pick("null", numbered("m", 9)), numbered("b", 3), pick("true", "true", "false"), pick("true", "false", "false"), purchase(), deleted())
	case 5:
		return fmt.Sprintf("customer_seat %s customer_id=%s member_id=%s status=%s %s deleted=%s",
			numbered("t", 20), numbered("c", 5), pick("null", numbered("m", 9)), pick("claimed", "claimed", "pending", "revoked"), purchase(), deleted())
	case 6:
		return fmt.Sprintf("member %s customer_id=%s external_id=%s role=%s deleted=%s", numbered("m", 9), numbered("c", 5), pick("null", numbered("u", 5)), pick("owner", "member"), deleted())
	case 7:
		return fmt.Sprintf("customer %s type=%s deleted=%s", numbered("c", 6), pick("team", "individual"), deleted())
	default:
		if r.IntN(3) == 0 {
			return "organization o1 created_at=" + pick("-1h", "-2h")
		}
		return fmt.Sprintf("benefit %s is_deleted=%s", numbered("b", 3), pick("true", "false"))
	}
}
