package jobs_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/httpapi"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// TestAnAppGetsAURLByHTTPAndSeesWhatItsUserBought takes the HTTP door as the worker opens it, with the worker's rights.
func TestAnAppGetsAURLByHTTPAndSeesWhatItsUserBought(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.addUser("usr_ada")
	asWorker := storetest.As(t, w.store, store.RoleWorker)
	if added, err := asWorker.InsertAPIKey(t.Context(), "shop", sha256.Sum256([]byte("truenorth_key")), store.Word{Actor: "tester"}); err != nil || !added {
		t.Fatalf("adding a key: %t, %v", added, err)
	}
	door := httptest.NewServer(httpapi.New(httpapi.Config{Store: asWorker, Client: w.client, Logger: testLogger(t)}))
	defer door.Close()
	ask := func(method, path, body string, into any) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, door.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer truenorth_key")
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", "cart-1")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(into); err != nil {
			t.Fatal(err)
		}
		return response.StatusCode
	}

	document := `{"products":["` + oneTime.String() + `"],"external_customer_id":"usr_ada"}`
	var request store.CheckoutRequest
	if status := ask(http.MethodPost, "/v1/checkout-requests?wait=30s", document, &request); status != http.StatusCreated || request.URL == nil || !strings.HasPrefix(*request.URL, w.api.URL+"/checkout/") {
		t.Fatalf("asked for a checkout: %d %+v", status, request)
	}
	var again store.CheckoutRequest
	if status := ask(http.MethodPost, "/v1/checkout-requests?wait=30s", document, &again); status != http.StatusOK || again.ID != request.ID {
		t.Errorf("asked again: %d %+v", status, again)
	}
	if err := w.fake.Pay(request.CheckoutID.String(), polarfake.PayOptions{Email: "ada@example.com", Name: "Ada"}); err != nil {
		t.Fatal(err)
	}
	w.settle()
	waittest.Eventually(t, func() error {
		var got struct{ Access []struct{ Kind, Via string } }
		if status := ask(http.MethodGet, "/v1/users/usr_ada/access", "", &got); status != http.StatusOK {
			t.Fatalf("asking for access is answered with %d", status)
		}
		for _, entry := range got.Access {
			if entry.Kind == "product" && entry.Via == "checkout" {
				return nil
			}
		}
		return fmt.Errorf("access is %+v", got.Access)
	})
}
