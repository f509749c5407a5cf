package jobs_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// BenchmarkCommitToTold measures how long after the commit that links a customer the app is told, in milliseconds.
func BenchmarkCommitToTold(b *testing.B) {
	w := newWorld(b, worldOptions{offline: true})
	w.addUser("usr_1")
	news := make(chan int64, 16)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	go func() {
		for change, err := range w.client.Changes(ctx, 0) {
			if err != nil {
				return
			}
			news <- change.ID
		}
	}()
	var waits []time.Duration
	for b.Loop() {
		w.exec("insert into polar.customer_link (customer_id, local_user_id, basis) values ($1, 'usr_1', 'manual')", uuid.New())
		committed := time.Now()
		<-news
		waits = append(waits, time.Since(committed))
	}
	slices.Sort(waits)
	at := func(quantile float64) float64 {
		return float64(waits[int(float64(len(waits)-1)*quantile)]) / float64(time.Millisecond)
	}
	b.ReportMetric(at(0.5), "ms-p50")
	b.ReportMetric(at(0.99), "ms-p99")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkFeedTriggers measures what the triggers of the change feed cost where events are applied: batches that make
// customers, subscriptions and orders and change them, with the triggers and without them in turns.
func BenchmarkFeedTriggers(b *testing.B) {
	s := storetest.New(b)
	runner, err := jobs.New(s, jobs.Config{API: polar.Config{BaseURL: "http://127.0.0.1:1/v1", Token: "polar_oat_test"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	exec := func(sql string) {
		if _, err := s.Pool().Exec(b.Context(), sql); err != nil {
			b.Fatal(err)
		}
	}
	set := func(do string) {
		for _, table := range []string{"customer", "subscription", `"order"`, "customer_link"} {
			exec(fmt.Sprintf("alter table polar.%s %s trigger user", table, do))
		}
	}
	const buyers = 40
	round := func() time.Duration {
		var deliveries []store.Delivery
		add := func(eventType string, at float64, id uuid.UUID, d doc) {
			d["id"], d["created_at"], d["filler"] = id, moment(1), fmt.Sprintf("%0800.0f", at)
			deliveries = append(deliveries, store.Delivery{
				WebhookID: uuid.NewString(), Type: eventType, ObjectID: id.String(), OccurredAt: parseMoment(at), Body: []byte(event(eventType, at, d)),
			})
		}
		var objects [buyers][3]uuid.UUID
		for i := range objects {
			objects[i] = [3]uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
		}
		var took time.Duration
		for turn := range 3 { // made, changed, changed where it counts
			deliveries = nil
			at, status := float64(10+turn), []string{"active", "active", "canceled"}[turn]
			for _, o := range objects {
				add("customer.updated", at, o[0], doc{"email": fmt.Sprint("x", turn)})
				add("subscription.updated", at, o[1], doc{"customer_id": o[0], "status": status, "amount": turn})
				add("order.updated", at, o[2], doc{"customer_id": o[0], "status": "paid", "paid": true, "refunded_amount": turn})
			}
			if _, err := s.InsertEvents(b.Context(), deliveries, false); err != nil {
				b.Fatal(err)
			}
			var batch int64
			if err := s.Pool().QueryRow(b.Context(), "select max(batch) from polar.event_log").Scan(&batch); err != nil {
				b.Fatal(err)
			}
			began := time.Now()
			if err := runner.WorkBatch(b.Context(), batch, true); err != nil {
				b.Fatal(err)
			}
			took += time.Since(began)
		}
		return took
	}
	round()
	var with, without []time.Duration
	for b.Loop() {
		set("disable")
		round()
		without = append(without, round())
		set("enable")
		round()
		with = append(with, round())
		exec("delete from polar.change_due")
	}
	slices.Sort(with)
	slices.Sort(without)
	plain, fed := without[len(without)/2], with[len(with)/2]
	b.ReportMetric(float64(plain.Microseconds())/1000, "ms-without-p50")
	b.ReportMetric(float64(fed.Microseconds())/1000, "ms-with-p50")
	b.ReportMetric(100*(float64(fed)/float64(plain)-1), "%-more")
	b.ReportMetric(0, "ns/op")
}
