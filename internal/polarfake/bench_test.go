package polarfake_test

import (
	"fmt"
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
