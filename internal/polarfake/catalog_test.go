package polarfake_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

func TestProductIsCreatedChangedAndArchived(t *testing.T) {
	t.Parallel()

	b := setup(t)
	var p document
	b.tells(func() {
		p = b.expect(http.StatusCreated, http.MethodPost, "/v1/products/", `{"name":"Atlas","recurring_interval":"year",
			"trial_interval":"week","trial_interval_count":1,"metadata":{"k":"v"},
			"prices":[{"amount_type":"fixed","price_amount":5000},{"amount_type":"metered_unit","meter_id":"`+polarfake.MeterID+`","unit_amount":"0.5"}]}`)
	}, "product.created")
	path := "/v1/products/" + p.text("id")
	session := b.checkoutOf(p.text("id"), "").text("id")
	b.tells(func() {
		kept := asObject(p.list("prices")[1]).text("id")
		p = b.expect(http.StatusOK, http.MethodPatch, path, `{"name":"Big atlas","description":"Bigger","visibility":"private",
			"metadata":{},"trial_interval":null,"trial_interval_count":null,
			"prices":[{"id":"`+kept+`"},{"amount_type":"fixed","price_amount":6000}]}`)
	}, "product.updated")
	prices := p.list("prices")
	if p.text("name") != "Big atlas" || len(prices) != 2 || asObject(prices[1])["price_amount"] != 6000.0 || p["modified_at"] == nil {
		t.Errorf("product %v", p)
	}
	if now := b.checkoutNow(session); now.object("product").text("name") != "Big atlas" {
		t.Errorf("the session shows an old product: %v", now.object("product"))
	}
	b.expect(http.StatusOK, http.MethodPatch, path, `{"is_archived":true}`)
	b.expect(http.StatusUnprocessableEntity, http.MethodPost, "/v1/checkouts/", `{"products":["`+p.text("id")+`"]}`)
	for body, want := range map[string]string{
		`{"name":"ab"}`:                         "body.name: string_too_short",
		`{"prices":[]}`:                         "body.prices: too_short",
		`{"prices":[{"id":"` + session + `"}]}`: "body.prices.0.id: value_error",
		`{"visibility":"hidden"}`:               "body.visibility: enum",
	} {
		answer := b.expect(http.StatusUnprocessableEntity, http.MethodPatch, path, body)
		if got := strings.Join(complaints(answer), "; "); got != want {
			t.Errorf("%s\n got %s\nwant %s", body, got, want)
		}
	}
	b.expect(http.StatusUnprocessableEntity, http.MethodPost, "/v1/products/", `{}`)
	b.idle()
}

func TestBenefitsFollowTheProduct(t *testing.T) {
	t.Parallel()

	b, subscription := monthlyBuyer(t)
	b.must(b.Pay(b.checkoutOf(polarfake.OneTimeProductID, "").text("id"), polarfake.PayOptions{Email: "once@example.com"}))
	var perk string
	b.tells(func() {
		perk = b.expect(http.StatusCreated, http.MethodPost, "/v1/benefits/",
			`{"type":"feature_flag","description":"A perk","properties":{},"metadata":{"k":"v"}}`).text("id")
	}, "benefit.created")
	b.tells(func() {
		p := b.expect(http.StatusOK, http.MethodPost, "/v1/products/"+polarfake.MonthlyProductID+"/benefits", `{"benefits":["`+perk+`"]}`)
		if benefits := p.list("benefits"); len(benefits) != 1 || asObject(benefits[0]).text("id") != perk {
			t.Errorf("product %v", p)
		}
	}, "product.updated", "benefit_grant.created", "benefit_grant.revoked")
	b.tells(func() { b.read(b.SetProductBenefits(polarfake.OneTimeProductID, perk)) },
		"product.updated", "benefit_grant.created", "benefit_grant.revoked")
	grants := b.expect(http.StatusOK, http.MethodGet, "/v1/benefits/"+perk+"/grants?is_granted=true", "").items()
	if len(grants) != 2 || grants[1].text("subscription_id") != subscription || grants[0].text("order_id") == "" {
		t.Errorf("grants %v", grants)
	}
	b.expect(http.StatusUnprocessableEntity, http.MethodPost, "/v1/products/"+polarfake.OneTimeProductID+"/benefits", `{"benefits":["`+subscription+`"]}`)
	b.expect(http.StatusNotFound, http.MethodGet, "/v1/benefits/"+subscription+"/grants", "")

	note := b.read(b.CreateBenefit(`{"type":"custom","description":"A note","properties":{"note":"old"}}`)).text("id")
	b.read(b.SetProductBenefits(polarfake.OneTimeProductID, perk, note))
	b.tells(func() { b.read(b.UpdateBenefit(note, `{"type":"custom","description":"A better note"}`)) }, "benefit.updated")
	b.tells(func() { b.read(b.UpdateBenefit(note, `{"type":"custom","properties":{"note":"new"}}`)) }, "benefit.updated", "benefit_grant.updated")
	for _, refused := range []string{`{}`, `{"type":"feature_flag"}`, `{"type":"custom","description":"x"}`} {
		b.expect(http.StatusUnprocessableEntity, http.MethodPatch, "/v1/benefits/"+note, refused)
	}
	b.expect(http.StatusUnprocessableEntity, http.MethodPost, "/v1/benefits/", `{"type":"discord","description":"A chat","properties":{}}`)

	// Nobody is told that a benefit is gone, but those who had it.
	b.tells(func() { b.expect(http.StatusNoContent, http.MethodDelete, "/v1/benefits/"+perk, "") },
		"benefit_grant.revoked", "benefit_grant.revoked")
	if p := b.expect(http.StatusOK, http.MethodGet, "/v1/products/"+polarfake.MonthlyProductID, ""); len(p.list("benefits")) != 0 {
		t.Errorf("the product still has the benefit: %v", p)
	}
	if shown := b.lastOf("benefit_grant.revoked").object("benefit"); shown["is_deleted"] != true {
		t.Errorf("the grant shows a benefit that is there: %v", shown)
	}
	b.expect(http.StatusNotFound, http.MethodDelete, "/v1/benefits/"+perk, "")
	b.idle()
}

func TestGrantsChangeByThemselves(t *testing.T) {
	t.Parallel()

	b, _ := monthlyBuyer(t)
	id := b.only("benefit_grant").text("id")
	b.tells(func() { b.must(b.UpdateGrant(id)) }, "benefit_grant.updated")
	b.tells(func() { b.must(b.CycleGrant(id)) }, "benefit_grant.cycled")
	b.tells(func() { b.must(b.RevokeGrant(id)) }, "benefit_grant.revoked")
	wantAPIError(t, b.RevokeGrant(id), http.StatusConflict, "BenefitGrantRevoked")
	wantAPIError(t, b.CycleGrant("none"), http.StatusNotFound, "ResourceNotFound")
}

func TestDiscountsAreManagedAndTakeOff(t *testing.T) {
	t.Parallel()

	b := setup(t)
	create := func(body string) document {
		return b.expect(http.StatusCreated, http.MethodPost, "/v1/discounts/", body)
	}
	var half document
	b.tells(func() {
		half = create(`{"type":"percentage","name":"Half","code":"HALF","duration":"forever","basis_points":5000,"max_redemptions":1,
			"products":["` + polarfake.OneTimeProductID + `"],"ends_at":"2199-01-01T00:00:00Z"}`)
	}, "discount.created")
	off := create(`{"type":"fixed","name":"Ten off","duration":"once","amount":1000,"currency":"usd"}`)
	create(`{"type":"fixed","name":"Both","duration":"repeating","duration_in_months":2,"amounts":{"usd":100,"eur":90}}`)
	for _, refused := range []string{
		`{}`, `{"type":"percentage","name":"x","duration":"once"}`, `{"type":"fixed","name":"x","duration":"once"}`,
		`{"type":"percentage","name":"x","duration":"repeating","basis_points":1}`,
		`{"type":"percentage","name":"x","duration":"once","basis_points":1,"code":"HALF"}`,
		`{"type":"percentage","name":"x","duration":"once","basis_points":1,"products":["` + half.text("id") + `"]}`,
		`{"type":"percentage","name":"x","duration":"once","basis_points":10001}`,
	} {
		b.expect(http.StatusUnprocessableEntity, http.MethodPost, "/v1/discounts/", refused)
	}

	session := b.checkoutOf(polarfake.OneTimeProductID, `"discount_id":"`+half.text("id")+`"`)
	if session["discount_amount"] != 2450.0 || session["total_amount"] != 2450.0 || session.object("discount").text("code") != "HALF" {
		t.Errorf("session %v", session)
	}
	b.must(b.Pay(session.text("id"), polarfake.PayOptions{Email: "buyer@example.com"}))
	if o := b.only("order"); o["discount_amount"] != 2450.0 || o["net_amount"] != 2450.0 || o.text("discount_id") != half.text("id") {
		t.Errorf("order %v", o)
	}
	// A redemption is counted, and told to nobody.
	if d := b.object("discount", half.text("id")); d["redemptions_count"] != 1.0 || d["modified_at"] == nil {
		t.Errorf("discount %v", d)
	}
	for product, id := range map[string]string{ // used up, and not for this product
		polarfake.OneTimeProductID: half.text("id"), polarfake.MonthlyProductID: half.text("id"), polarfake.PayWhatYouWantProductID: session.text("id"),
	} {
		b.expect(http.StatusUnprocessableEntity, http.MethodPost, "/v1/checkouts/", `{"products":["`+product+`"],"discount_id":"`+id+`"}`)
	}

	open := "/v1/checkouts/" + b.checkoutOf(polarfake.OneTimeProductID, "").text("id")
	if c := b.expect(http.StatusOK, http.MethodPatch, open, `{"discount_id":"`+off.text("id")+`"}`); c["total_amount"] != 3900.0 {
		t.Errorf("session %v", c)
	}
	if c := b.expect(http.StatusOK, http.MethodPatch, open, `{"discount_id":null}`); c["total_amount"] != 4900.0 || c["discount"] != nil {
		t.Errorf("session %v", c)
	}

	path := "/v1/discounts/" + off.text("id")
	b.tells(func() {
		d := b.expect(http.StatusOK, http.MethodPatch, path, `{"name":"Twenty off","amount":2000,"code":"","starts_at":null}`)
		if d["amount"] != 2000.0 || d["code"] != nil || d["modified_at"] == nil {
			t.Errorf("discount %v", d)
		}
	}, "discount.updated")
	b.expect(http.StatusUnprocessableEntity, http.MethodPatch, path, `{"code":"HALF"}`)
	b.expect(http.StatusUnprocessableEntity, http.MethodPatch, path, `{"max_redemptions":0}`)
	b.tells(func() { b.expect(http.StatusNoContent, http.MethodDelete, path, "") }, "discount.deleted")
	b.expect(http.StatusNotFound, http.MethodGet, path, "")
	b.idle()
}

func TestOrganizationIsUpdated(t *testing.T) {
	t.Parallel()

	b := setup(t)
	path := "/v1/organizations/" + polarfake.OrganizationID
	b.tells(func() {
		o := b.expect(http.StatusOK, http.MethodPatch, path, `{"name":"Truer North","email":"new@example.com","website":"https://example.com",
			"avatar_url":null,"country":"NO","default_presentment_currency":"eur"}`)
		if o.text("name") != "Truer North" || o.text("country") != "NO" || o["modified_at"] == nil {
			t.Errorf("organization %v", o)
		}
	}, "organization.updated")
	b.expect(http.StatusUnprocessableEntity, http.MethodPatch, path, `{"name":"x"}`)
	b.expect(http.StatusNotFound, http.MethodPatch, "/v1/organizations/"+polarfake.MeterID, `{}`)
	if types := b.idle(); !slices.Equal(types, []string{"organization.updated"}) {
		t.Errorf("events %v", types)
	}
}
