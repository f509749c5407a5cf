package polarfake_test

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// testClock is a clock that moves when told to.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func newTestClock() *testClock { return &testClock{now: time.Now()} }

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()

	return c.now
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()

	c.now = c.now.Add(d)
}

func TestOverdueSessionStaysOpenUntilTheSweep(t *testing.T) {
	t.Parallel()

	clock := newTestClock()
	b := setup(t, func(o *polarfake.Options) { o.Clock = clock.Now })
	id := b.checkoutOf(polarfake.OneTimeProductID, "").text("id")
	if b.ExpireOverdue() != 0 {
		t.Fatal("a fresh session expired")
	}
	clock.advance(24*time.Hour + time.Minute)
	if status := b.checkoutNow(id).text("status"); status != "open" {
		t.Errorf("status %s before the sweep", status)
	}
	wantAPIError(t, b.Confirm(id, "buyer@example.com"), http.StatusGone, "ExpiredCheckoutError")
	if b.ExpireOverdue() != 1 {
		t.Error("the overdue session did not expire")
	}
	if status := b.checkoutNow(id).text("status"); status != "expired" {
		t.Errorf("status %s after the sweep", status)
	}
	if types := b.idle(); !slices.Contains(types, "checkout.expired") {
		t.Errorf("events %v", types)
	}
}

func TestLateUpdateExpiresWithoutTheEvent(t *testing.T) {
	t.Parallel()

	clock := newTestClock()
	b := setup(t, func(o *polarfake.Options) { o.Clock = clock.Now })
	id := b.checkoutOf(polarfake.OneTimeProductID, "").text("id")
	clock.advance(25 * time.Hour)
	updated := b.expect(http.StatusOK, http.MethodPatch, "/v1/checkouts/"+id, `{"customer_name":"Late"}`)
	if updated.text("status") != "expired" {
		t.Errorf("status %s", updated.text("status"))
	}
	if b.ExpireOverdue() != 0 {
		t.Error("the sweep took a session that had expired already")
	}
	if types := b.idle(); slices.Contains(types, "checkout.expired") {
		t.Errorf("events %v", types)
	}
}

func TestExpireEndsAnOpenSession(t *testing.T) {
	t.Parallel()

	b := setup(t)
	id := b.checkoutOf(polarfake.OneTimeProductID, "").text("id")
	b.must(b.Expire(id))
	if status := b.checkoutNow(id).text("status"); status != "expired" {
		t.Errorf("status %s", status)
	}
	wantAPIError(t, b.Expire(id), http.StatusForbidden, "NotOpenCheckout")
	wantAPIError(t, b.Expire("none"), http.StatusNotFound, "ResourceNotFound")
	if types := b.idle(); count(types, "checkout.expired") != 1 {
		t.Errorf("events %v", types)
	}
	status, _ := b.request(http.MethodPatch, "/v1/checkouts/"+id, `{}`)
	if status != http.StatusForbidden {
		t.Errorf("PATCH of an expired session answered %d", status)
	}
}
