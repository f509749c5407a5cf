package polarfake_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

func TestCustomerIsCreatedAndFound(t *testing.T) {
	t.Parallel()

	b := setup(t)
	created := b.customer(`{"email":"Ada@Example.COM","external_id":"usr/ä 1","name":"Ada","metadata":{"plan":"a"},
		"billing_address":{"country":"US","city":"Reno"},"tax_id":"12-3456789","locale":"en-GB","owner":{"email":"own@example.com"}}`)
	if created.text("email") != "Ada@example.com" || created.text("type") != "individual" || created["modified_at"] != nil {
		t.Errorf("customer %v", created)
	}
	plain := b.customer(`{"email":"bob@example.com","external_id":"usr 2"}`)
	for path, want := range map[string]int{
		"?email=ADA@example.com": 1, "?query=ada": 1, "?query=usr": 2, "?query=sr": 0, "?metadata[plan]=a": 1,
		"?metadata[plan]=b&metadata[plan]=c": 0, "?active=true": 0, "?active=false": 2, "?sorting=name": 2, "?email=x@y.zz": 0,
	} {
		if got := len(b.expect(http.StatusOK, http.MethodGet, "/v1/customers/"+path, "").items()); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	found := b.expect(http.StatusOK, http.MethodGet, "/v1/customers/external/usr%202", "")
	if found.text("id") != plain.text("id") {
		t.Errorf("by external id: %v", found)
	}
	b.expect(http.StatusOK, http.MethodGet, "/v1/customers/external/usr%202/state", "")
	status, _, _ := b.raw(http.MethodGet, "/v1/customers/external/usr%2F%C3%A4%201", "", nil)
	if status != http.StatusNotFound {
		t.Errorf("an external id with a slash answered %d", status)
	}
	team := b.customer(`{"type":"team","name":"Crew"}`)
	if team["email"] != nil || team.text("type") != "team" {
		t.Errorf("team %v", team)
	}
	if types := b.idle(); count(types, "customer.created") != 3 || count(types, "customer.state_changed") != 3 ||
		count(types, "member.created") != 2 {
		t.Errorf("events %v", types)
	}
}

func TestCustomerRequestIsValidated(t *testing.T) {
	t.Parallel()

	b := setup(t)
	b.customer(`{"email":"ada@example.com","external_id":"usr_1"}`)
	for body, want := range map[string]string{
		`{}`:               "body.email: missing",
		`{"email":null}`:   "body.email: string_type",
		`{"email":"a@b"}`:  "body.email: value_error",
		`{"type":"robot"}`: "body.email: missing; body.type: enum",
		`{"email":"x@example.com","organization_id":"` + polarfake.OrganizationID + `"}`: "body.organization_id: value_error",
		`{"email":"ADA@EXAMPLE.com","external_id":"usr_1"}`:                              "body.email: value_error; body.external_id: value_error",
		`{"email":"x@example.com","owner":{}}`:                                           "body.owner.email: missing",
		`{"email":"x@example.com","external_id":"a\u0000"}`:                              "body.external_id: value_error",
		`{"email":"x@example.com","tax_id":"1","billing_address":{"country":"US"}}`:      "body.tax_id: value_error",
	} {
		answer := b.expect(http.StatusUnprocessableEntity, http.MethodPost, "/v1/customers/", body)
		if got := strings.Join(complaints(answer), "; "); got != want {
			t.Errorf("%s\n got %s\nwant %s", body, got, want)
		}
	}
	if len(b.Customers()) != 1 {
		t.Error("a refused customer was created")
	}
	b.customer(`{"email":"two@example.com","external_id":"USR_1"}`) // external ids are told apart by case
	b.customer(`{"email":"three@example.com","external_id":""}`)
	b.customer(`{"email":"four@example.com","external_id":""}`) // null, so not the same
}

func TestExternalIDIsWrittenOnce(t *testing.T) {
	t.Parallel()

	b := setup(t)
	b.customer(`{"email":"taken@example.com","external_id":"taken"}`)
	path := "/v1/customers/" + b.customer(`{"email":"ada@example.com"}`).text("id")
	refuse := func(body, words string) {
		t.Helper()
		answer := b.expect(http.StatusUnprocessableEntity, http.MethodPatch, path, body)
		detail := answer.list("detail")
		if len(detail) != 1 || asObject(detail[0]).text("msg") != words ||
			!slices.Equal(complaints(answer), []string{"body.external_id: value_error"}) {
			t.Errorf("%s was refused with %v", body, answer)
		}
	}
	refuse(`{"external_id":"taken"}`, "A customer with this external ID already exists.")
	b.expect(http.StatusOK, http.MethodPatch, path, `{"external_id":""}`)
	b.expect(http.StatusOK, http.MethodPatch, path, `{"external_id":"usr_1"}`)
	b.expect(http.StatusOK, http.MethodPatch, path, `{"external_id":"usr_1"}`)
	refuse(`{"external_id":"usr_2"}`, "Customer external ID cannot be updated.")
	refuse(`{"external_id":null}`, "Customer external ID cannot be updated.")
	refuse(`{"external_id":""}`, "Customer external ID cannot be updated.")
	renamed := b.expect(http.StatusOK, http.MethodPatch, "/v1/customers/external/usr_1", `{"external_id":"other","name":"Ada"}`)
	if renamed.text("external_id") != "usr_1" || renamed.text("name") != "Ada" {
		t.Errorf("customer %v", renamed)
	}
}

func TestCustomerIsUpdated(t *testing.T) {
	t.Parallel()

	b := setup(t)
	b.customer(`{"email":"taken@example.com"}`)
	id := b.customer(`{"email":"ada@example.com","name":"Ada","metadata":{"a":"1","b":"2"}}`).text("id")
	b.expect(http.StatusUnprocessableEntity, http.MethodPatch, "/v1/customers/"+id, `{"email":"TAKEN@example.com"}`)
	updated := b.expect(http.StatusOK, http.MethodPatch, "/v1/customers/"+id,
		`{"email":"new@example.com","name":null,"metadata":{"c":"3"},"billing_address":{"country":"NO"},"type":"team"}`)
	if updated.text("email") != "new@example.com" || updated["name"] != nil || len(updated.object("metadata")) != 1 ||
		updated["modified_at"] == nil || updated.text("type") != "team" {
		t.Errorf("customer %v", updated)
	}
	b.customer(`{"email":"ada@example.com"}`) // the old address is free
	if _, err := b.UpdateCustomer(id, `{"name":"Again"}`); err != nil {
		t.Error(err)
	}
	if types := b.idle(); count(types, "customer.updated") != 2 {
		t.Errorf("events %v", types)
	}
}

func TestDeletedCustomerFreesItsExternalID(t *testing.T) {
	t.Parallel()

	b := setup(t)
	first := b.customer(`{"email":"ada@example.com","external_id":"usr_1","metadata":{"k":"v"}}`)
	b.expect(http.StatusNoContent, http.MethodDelete, "/v1/customers/external/usr_1", "")
	b.expect(http.StatusNotFound, http.MethodGet, "/v1/customers/"+first.text("id"), "")
	b.expect(http.StatusNotFound, http.MethodGet, "/v1/customers/"+first.text("id")+"/state", "")
	b.expect(http.StatusNotFound, http.MethodGet, "/v1/customers/external/usr_1", "")
	b.expect(http.StatusNotFound, http.MethodDelete, "/v1/customers/"+first.text("id"), "")
	b.idle()
	deleted := b.lastOf("customer.deleted")
	if deleted.text("external_id") != "usr_1" || deleted.object("metadata").text("__external_id") != "usr_1" ||
		deleted["deleted_at"] == nil || deleted.object("metadata").text("k") != "v" {
		t.Errorf("customer.deleted %v", deleted)
	}
	if kept := decode(t, b.Customer(first.text("id"))); kept["deleted_at"] == nil {
		t.Errorf("kept %v", kept)
	}
	second := b.customer(`{"email":"ada@example.com","external_id":"usr_1"}`)
	if second.text("id") == first.text("id") {
		t.Error("a recycled external id brought the old customer back")
	}
	b.expect(http.StatusNoContent, http.MethodDelete, "/v1/customers/"+second.text("id")+"?anonymize=true", "")
	b.idle()
	anonymous := b.lastOf("customer.deleted")
	if strings.Contains(anonymous.text("email"), "ada") || anonymous.object("metadata")["__anonymized_at"] == nil ||
		anonymous.text("external_id") != "usr_1" {
		t.Errorf("anonymized %v", anonymous)
	}
}

func TestCustomerEventsShowTheCustomerAsItIsWhenSent(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) { o.CustomerEventDelay = 2 * time.Second })
	id := b.customer(`{"email":"ada@example.com"}`).text("id")
	b.expect(http.StatusOK, http.MethodPatch, "/v1/customers/"+id, `{"external_id":"usr_1"}`)
	b.must(b.DeleteCustomer(id))
	b.idle()
	var told []string
	for _, ev := range b.Events() {
		if data := decode(t, ev.Payload).object("data"); strings.HasPrefix(ev.Type, "customer.") {
			told = append(told, ev.Type)
			if data.text("external_id") != "usr_1" || data["deleted_at"] == nil {
				t.Errorf("%s tells of an earlier state: %v", ev.Type, data)
			}
		}
	}
	want := []string{
		"customer.created", "customer.state_changed", "customer.updated", "customer.state_changed",
		"customer.deleted", "customer.state_changed",
	}
	if !slices.Equal(told, want) {
		t.Errorf("told of %v", told)
	}
}
