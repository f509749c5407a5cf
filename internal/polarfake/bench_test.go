package polarfake_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

func BenchmarkCreateCheckout(b *testing.B) {
	fake := polarfake.New(polarfake.Options{})
	defer fake.Close()
	body := `{"products":["` + polarfake.OneTimeProductID + `"],"external_customer_id":"usr_1","metadata":{"truenorth_request":"r"}}`
	b.ReportAllocs()
	for b.Loop() {
		if _, err := fake.CreateCheckout(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreateCustomer(b *testing.B) {
	fake := polarfake.New(polarfake.Options{})
	defer fake.Close()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		if _, err := fake.CreateCustomer(fmt.Sprintf(`{"email":"u%d@example.com","external_id":"usr_%d"}`, n, n)); err != nil {
			b.Fatal(err)
		}
	}
}

// A page costs what it shows, however long the list, in the order that is kept; a filter costs a look at each object.
func BenchmarkListPage(b *testing.B) {
	fake := polarfake.New(polarfake.Options{})
	defer fake.Close()
	fake.SeedCustomers(1_000_000, "usr_")
	fake.SeedOrders(100_000)
	fake.SeedSubscriptions(100_000)
	fake.SeedCheckouts(100_000)
	for name, path := range map[string]string{
		"customers of 1000000":    "/v1/customers/?sorting=created_at&limit=100&page=5000",
		"customers filtered":      "/v1/customers/?active=false&limit=100&page=5000&sorting=created_at",
		"orders of 100000":        "/v1/orders/?sorting=created_at&limit=100&page=500",
		"subscriptions of 100000": "/v1/subscriptions/?sorting=started_at&limit=100&page=500",
		"checkouts of 100000":     "/v1/checkouts/?sorting=created_at&limit=100&page=500",
		"checkouts by status":     "/v1/checkouts/?status=open&sorting=created_at&limit=100&page=500",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				request := httptest.NewRequestWithContext(b.Context(), http.MethodGet, path, nil)
				request.Header.Set("Authorization", "Bearer x")
				answer := httptest.NewRecorder()
				fake.ServeHTTP(answer, request)
				if answer.Code != http.StatusOK || answer.Body.Len() < 1000 {
					b.Fatalf("answered %d", answer.Code)
				}
			}
		})
	}
}
