package jobs_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// BenchmarkCommitToURL measures what truenorth adds to Polar's own time when a buyer waits: from the commit of the
// request to its URL in the caller's hands, less what the bare call takes in the same run. Both are done in turns.
func BenchmarkCommitToURL(b *testing.B) {
	const answer = 30 * time.Millisecond
	w := newWorld(b, worldOptions{offline: true, fake: polarfake.Options{AnswerDelay: answer}})
	ctx := context.Background()
	params := truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}, ExternalCustomerID: "usr_ada"}
	body, err := params.JSON()
	if err != nil {
		b.Fatal(err)
	}
	bare := func() {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.api.URL+"/v1/checkouts/", strings.NewReader(string(body)))
		if err != nil {
			b.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer polar_oat_test")
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := fmt.Fscan(response.Body, new(string)); err != nil || response.StatusCode != http.StatusCreated {
			b.Fatalf("the bare call: %s, %v", response.Status, err)
		}
		_ = response.Body.Close()
	}
	bare() // the first pays for connections
	w.await(w.ask("usr_ada"), "open")
	var bares, wholes []time.Duration
	for b.Loop() {
		started := time.Now()
		bare()
		bares = append(bares, time.Since(started))
		id, err := w.client.CreateCheckout(ctx, params)
		if err != nil {
			b.Fatal(err)
		}
		committed := time.Now()
		if _, err := w.client.AwaitURL(ctx, id); err != nil {
			b.Fatal(err)
		}
		wholes = append(wholes, time.Since(committed))
	}
	slices.Sort(bares)
	slices.Sort(wholes)
	at := func(sorted []time.Duration, quantile float64) float64 {
		return float64(sorted[int(float64(len(sorted)-1)*quantile)]) / float64(time.Millisecond)
	}
	b.ReportMetric(at(bares, 0.5), "ms-bare-p50")
	b.ReportMetric(at(wholes, 0.5), "ms-whole-p50")
	b.ReportMetric(at(wholes, 0.5)-at(bares, 0.5), "ms-beyond-p50")
	b.ReportMetric(at(wholes, 0.99)-at(bares, 0.5), "ms-beyond-p99")
	b.ReportMetric(0, "ns/op")
}
