package store_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// BenchmarkInsertEvents stores events of 2 kB in transactions of several sizes; events/s is of one connection.
func BenchmarkInsertEvents(b *testing.B) {
	for _, size := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("Together=%d", size), func(b *testing.B) {
			s := storetest.New(b)
			random := rand.New(rand.NewPCG(1, 1))
			words := strings.Fields("customer product price checkout order amount currency usd status open confirmed succeeded")
			var stored int
			for b.Loop() {
				b.StopTimer()
				deliveries := make([]store.Delivery, size)
				for i := range deliveries {
					var text strings.Builder
					for text.Len() < 1900 {
						fmt.Fprintf(&text, `"%s_%d":"%s",`, words[random.IntN(len(words))], random.IntN(100), uuid.NewString()[:random.IntN(36)])
					}
					deliveries[i] = store.Delivery{
						WebhookID: uuid.NewString(), Type: "order.updated", ObjectID: uuid.NewString(),
						Body: []byte(`{"type":"order.updated","data":{` + text.String() + `"x":1}}`),
					}
				}
				b.StartTimer()
				if _, err := s.InsertEvents(b.Context(), deliveries, false); err != nil {
					b.Fatal(err)
				}
				stored += size
			}
			b.ReportMetric(float64(stored)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(stored), "us/event")
		})
	}
}
