package polarfake

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// customer is a buyer; its exported fields are its document.
type customer struct {
	ID                     string     `json:"id"`
	CreatedAt              timestamp  `json:"created_at"`
	ModifiedAt             *timestamp `json:"modified_at"`
	Metadata               metadata   `json:"metadata"`
	ExternalID             *string    `json:"external_id"`
	Email                  *string    `json:"email"` // null only for a team
	EmailVerified          bool       `json:"email_verified"`
	Type                   string     `json:"type"`
	Name                   *string    `json:"name"`
	BillingName            *string    `json:"billing_name"`
	BillingAddress         *address   `json:"billing_address"`
	TaxID                  []string   `json:"tax_id"` // the number and its format
	Locale                 *string    `json:"locale"`
	OrganizationID         string     `json:"organization_id"`
	DefaultPaymentMethodID *string    `json:"default_payment_method_id"`
	DeletedAt              *timestamp `json:"deleted_at"`
	FirstUserEventAt       *timestamp `json:"first_user_event_at"`
	AvatarURL              *string    `json:"avatar_url"`

	order         int64 // of creation
	statePending  bool  // a debounced customer.state_changed is on its way
	subscriptions []*subscription
	grants        []*grant
	members       []*member
}

var customerTypes = []string{"individual", "team"}

type member struct {
	ID         string     `json:"id"`
	CreatedAt  timestamp  `json:"created_at"`
	ModifiedAt *timestamp `json:"modified_at"`
	CustomerID string     `json:"customer_id"`
	Email      string     `json:"email"`
	Name       *string    `json:"name"`
	ExternalID *string    `json:"external_id"`
	Role       string     `json:"role"`
}

// customerIndex finds customers. Only live ones are in live, byEmail and byExternalID.
type customerIndex struct {
	live         []*customer // in the order of creation
	byID         map[string]*customer
	byEmail      map[string]*customer // in lower case
	byExternalID map[string]*customer
}

func newCustomerIndex() customerIndex {
	return customerIndex{
		byID: make(map[string]*customer), byEmail: make(map[string]*customer), byExternalID: make(map[string]*customer),
	}
}

func (i *customerIndex) add(c *customer) {
	i.live = append(i.live, c)
	i.byID[c.ID] = c
	if c.Email != nil {
		i.byEmail[strings.ToLower(*c.Email)] = c
	}
	if c.ExternalID != nil {
		i.byExternalID[*c.ExternalID] = c
	}
}

func (i *customerIndex) findEmail(email string) *customer { return i.byEmail[strings.ToLower(email)] }

func (i *customerIndex) changeEmail(c *customer, email *string) {
	if c.Email != nil {
		delete(i.byEmail, strings.ToLower(*c.Email))
	}
	c.Email = email
	if email != nil {
		i.byEmail[strings.ToLower(*email)] = c
		c.AvatarURL = avatarURL(*email)
	}
}

func (i *customerIndex) changeExternalID(c *customer, externalID *string) {
	if c.ExternalID != nil {
		delete(i.byExternalID, *c.ExternalID)
	}
	c.ExternalID = externalID
	if externalID != nil {
		i.byExternalID[*externalID] = c
	}
}

// retire takes a deleted customer out of everything but byID.
func (i *customerIndex) retire(c *customer) {
	at, found := slices.BinarySearchFunc(i.live, c.order, func(c *customer, order int64) int { return cmp.Compare(c.order, order) })
	if found {
		i.live = slices.Delete(i.live, at, at+1)
	}
	if c.Email != nil && i.findEmail(*c.Email) == c {
		delete(i.byEmail, strings.ToLower(*c.Email))
	}
	i.changeExternalID(c, nil)
}

func avatarURL(email string) *string {
	sum := sha256.Sum256([]byte(strings.ToLower(email)))
	return new("https://www.gravatar.com/avatar/" + hex.EncodeToString(sum[:]) + "?d=404")
}

// savedExternalID is where a deleted customer keeps the external id it had.
const savedExternalID = "__external_id"

// document is what the API and the webhooks show: a deleted customer with the external id it had.
func (c *customer) document() customer {
	shown := *c
	if saved, ok := c.Metadata[savedExternalID].(string); ok && c.DeletedAt != nil {
		shown.ExternalID = &saved
	}
	return shown
}

// Customers returns the documents of all live customers, oldest first.
func (f *Fake) Customers() []json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()

	return documents(f.customers.live)
}

// Customer returns the document of a customer, also of a deleted one, or nil.
func (f *Fake) Customer(id string) json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()

	if found, ok := f.customers.byID[id]; ok {
		return encode(found.document())
	}
	return nil
}

// CreateCustomer does what POST /v1/customers/ does with the body and returns the document.
func (f *Fake) CreateCustomer(body string) (json.RawMessage, error) {
	return f.call(f.createCustomer, body, nil)
}

// UpdateCustomer does what PATCH /v1/customers/{id} does with the body and returns the document.
func (f *Fake) UpdateCustomer(id, body string) (json.RawMessage, error) {
	return f.call(f.updateCustomer, body, map[string]string{"id": id})
}

// DeleteCustomer does what DELETE /v1/customers/{id} does.
func (f *Fake) DeleteCustomer(id string) error {
	_, err := f.call(f.deleteCustomer, "", map[string]string{"id": id})
	return err
}

// CreateCheckout does what POST /v1/checkouts/ does with the body and returns the document.
func (f *Fake) CreateCheckout(body string) (json.RawMessage, error) {
	return f.call(f.createCheckout, body, nil)
}

// call runs a handler for a caller in this process.
func (f *Fake) call(handle handler, body string, path map[string]string) (json.RawMessage, error) {
	r := &request{Request: &http.Request{}, body: []byte(body)}
	r.Request = r.WithContext(r.Context())
	for name, value := range path {
		r.SetPathValue(name, value)
	}
	f.mu.Lock()
	defer f.mu.Unlock()

	document, err := handle(r)
	if err != nil {
		return nil, err
	}
	return encode(document), nil
}

// SeedCustomers adds n customers and emits nothing, as if they had been there before the endpoint. The i-th, from 0,
// has the external id prefix+i and the e-mail prefix+i@example.com. The ids are returned in that order.
func (f *Fake) SeedCustomers(n int, prefix string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()

	ids := make([]string, n)
	now := f.now()
	for i := range n {
		externalID := fmt.Sprintf("%s%d", prefix, i)
		c := f.newCustomer(externalID+"@example.com", now)
		c.ExternalID = &externalID
		f.customers.add(c)
		ids[i] = c.ID
	}
	return ids
}

func (f *Fake) newCustomer(email string, now timestamp) *customer {
	c := &customer{
		ID: newID(), CreatedAt: now, Metadata: metadata{}, Type: "individual", OrganizationID: OrganizationID, order: f.next(),
	}
	if email != "" {
		c.Email, c.AvatarURL = &email, avatarURL(email)
	}
	return c
}

// addOwner gives a new customer the member that every customer has.
func (f *Fake) addOwner(c *customer, email string, name, externalID *string) {
	if email == "" {
		return
	}
	owner := &member{
		ID: newID(), CreatedAt: c.CreatedAt, CustomerID: c.ID, Email: email, Name: name, ExternalID: externalID, Role: "owner",
	}
	c.members = append(c.members, owner)
	f.sales.members = append(f.sales.members, owner)
	f.emit("member.created", owner.ID, owner)
}

// findCustomer returns the live customer that a path names by id or by external id.
func (f *Fake) findCustomer(r *request) (*customer, error) {
	if externalID := r.PathValue("external_id"); externalID != "" {
		// Polar's framework decodes the path before it looks for slashes.
		found, ok := f.customers.byExternalID[externalID]
		if !ok || strings.Contains(externalID, "/") {
			return nil, errNotFound()
		}
		return found, nil
	}
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	found, ok := f.customers.byID[id]
	if !ok || found.DeletedAt != nil {
		return nil, errNotFound()
	}
	return found, nil
}

func (f *Fake) getCustomer(r *request) (any, error) {
	found, err := f.findCustomer(r)
	if err != nil {
		return nil, err
	}
	return found.document(), nil
}

func (f *Fake) getCustomerState(r *request) (any, error) {
	if view := r.PathValue("view"); view != "" && view != "state" {
		return nil, errNotFound()
	}
	found, err := f.findCustomer(r)
	if err != nil {
		return nil, err
	}
	return found.state(), nil
}

func (f *Fake) createCustomer(r *request) (any, error) {
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	kind := firstOf(body.choice("type", customerTypes), new("individual"))
	if *kind == "individual" && body.require("email") && body.values["email"] == nil {
		body.fail(body.at("email"), "string_type", "Input should be a valid string", nil, nil)
	}
	email := body.email("email")
	externalID := body.nullableText("external_id")
	name := body.text("name", 0, 256)
	billing := body.address("billing_address")
	taxID := body.taxID("tax_id", billing)
	locale := body.locale()
	given := body.metadata("metadata")
	organization := body.identifier("organization_id")
	ownerEmail, ownerName, ownerExternalID := readOwner(body)
	if err := body.err(); err != nil {
		return nil, err
	}

	if organization != nil {
		body.failValue(body.at("organization_id"), "Setting organization_id is disallowed when using an organization token.", *organization)
	}
	f.checkUnique(body, nil, email, externalID)
	if err := body.ruleErr(); err != nil {
		return nil, err
	}

	c := f.newCustomer(deref(email), f.now())
	c.Type, c.ExternalID, c.Name, c.BillingName = *kind, externalID, name, name
	c.BillingAddress, c.TaxID, c.Locale, c.Metadata = billing, taxID, locale, given
	f.customers.add(c)
	if ownerEmail == nil {
		ownerEmail, ownerName, ownerExternalID = email, name, externalID
	}
	f.addOwner(c, deref(ownerEmail), ownerName, ownerExternalID)
	f.emitCustomer(c, "customer.created")
	return c.document(), nil
}

func readOwner(body fields) (email, name, externalID *string) {
	owner, ok := body.object("owner")
	if !ok || !owner.require("email") {
		return nil, nil, nil
	}
	return owner.email("email"), owner.text("name", 0, 256), owner.nullableText("external_id")
}

// checkUnique reports an e-mail or external id that another live customer than self has.
func (f *Fake) checkUnique(body fields, self *customer, email, externalID *string) {
	if email != nil {
		if other := f.customers.findEmail(*email); other != nil && other != self {
			body.failValue(body.at("email"), "A customer with this email address already exists.", *email)
		}
	}
	if externalID != nil {
		if other := f.customers.byExternalID[*externalID]; other != nil && other != self {
			body.failValue(body.at("external_id"), "A customer with this external ID already exists.", *externalID)
		}
	}
}

func (f *Fake) updateCustomer(r *request) (any, error) {
	c, err := f.findCustomer(r)
	if err != nil {
		return nil, err
	}
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	email, kind := body.email("email"), body.choice("type", customerTypes)
	name, locale := body.text("name", 0, 256), body.locale()
	billing := body.address("billing_address")
	taxID := body.taxID("tax_id", firstOf(billing, c.BillingAddress))
	externalID, changesExternalID := body.nullableText("external_id"), body.has("external_id")
	given := body.metadata("metadata")
	if err := body.err(); err != nil {
		return nil, err
	}

	if r.PathValue("external_id") != "" {
		externalID, changesExternalID = nil, false // that route has no such field
	}
	switch {
	case !changesExternalID:
		f.checkUnique(body, c, email, nil)
	case c.ExternalID != nil && deref(externalID) != *c.ExternalID:
		f.checkUnique(body, c, email, nil)
		body.failValue(body.at("external_id"), "Customer external ID cannot be updated.", body.values["external_id"])
	default:
		f.checkUnique(body, c, email, externalID)
	}
	if err := body.ruleErr(); err != nil {
		return nil, err
	}

	if email != nil && *email != deref(c.Email) {
		f.customers.changeEmail(c, email)
		c.EmailVerified = false
	}
	if changesExternalID {
		f.customers.changeExternalID(c, externalID)
	}
	if kind != nil {
		c.Type = *kind
	}
	if body.has("name") {
		c.Name = name
	}
	if body.has("billing_address") {
		c.BillingAddress = billing
	}
	if body.has("tax_id") {
		c.TaxID = taxID
	}
	if body.has("locale") {
		c.Locale = locale
	}
	if body.has("metadata") {
		c.Metadata = given
	}
	if len(body.values) > 0 {
		c.ModifiedAt = new(f.now())
	}
	f.emitCustomer(c, "customer.updated")
	return c.document(), nil
}

// deleteCustomer deletes softly: the external id becomes free, but the webhook still tells it.
func (f *Fake) deleteCustomer(r *request) (any, error) {
	c, err := f.findCustomer(r)
	if err != nil {
		return nil, err
	}
	anonymize := false
	if r.URL != nil {
		query := r.query()
		anonymize = deref(query.boolean("anonymize"))
		if err := query.err(); err != nil {
			return nil, err
		}
	}
	now := f.now()
	f.revokeEverything(c, now)
	saved := metadata{}
	if c.ExternalID != nil {
		saved[savedExternalID] = *c.ExternalID
	}
	f.customers.retire(c)
	c.DeletedAt, c.ModifiedAt = &now, &now
	if anonymize {
		c.anonymize()
		saved["__anonymized_at"] = now.String()
	}
	c.Metadata = c.Metadata.merged(saved)
	f.emitCustomer(c, "customer.deleted")
	return struct{}{}, nil
}

func (c *customer) anonymize() {
	if c.Email != nil {
		sum := sha256.Sum256([]byte(*c.Email))
		anonymous := hex.EncodeToString(sum[:])
		c.Email, c.AvatarURL = new(anonymous+"@redacted.example"), avatarURL(anonymous)
		if c.Name != nil {
			c.Name = new(anonymous[:16])
		}
	}
	c.BillingName, c.BillingAddress, c.TaxID = nil, nil, nil
}

func (f *Fake) listCustomers(r *request) (any, error) {
	query := r.query()
	organizations, active := query.identifiers("organization_id"), query.boolean("active")
	wanted := query.metadata()
	paging := query.paging([]string{"created_at", "email", "name"})
	if err := query.err(); err != nil {
		return nil, err
	}
	email, search := query.text("email"), query.text("query")

	found := f.customers.live
	switch {
	case email != "":
		found = nil
		if match := f.customers.findEmail(email); match != nil {
			found = []*customer{match}
		}
	case !paging.byCreation():
		found = slices.Clone(found)
	}
	if len(organizations) > 0 || active != nil || len(wanted) > 0 || search != "" {
		all := found
		found = nil
		for _, c := range all {
			isFound := search == "" || containsFold(deref(c.Email), search) || containsFold(deref(c.Name), search) ||
				strings.HasPrefix(deref(c.ExternalID), search)
			if isFound && organizations.allow(OrganizationID) && c.Metadata.matches(wanted) &&
				(active == nil || *active == c.isActive()) {
				found = append(found, c)
			}
		}
	}
	sortBy(found, paging, func(c *customer, by string) any {
		switch by {
		case "email":
			return deref(c.Email)
		case "name":
			return deref(c.Name)
		}
		return c.CreatedAt.Time
	})
	return listResource(found, paging), nil
}

// isActive is Polar's filter "active": there is a subscription that runs, if only on trial or past due.
func (c *customer) isActive() bool {
	return slices.ContainsFunc(c.subscriptions, func(s *subscription) bool {
		return s.isRunning() || s.Status == "past_due"
	})
}
