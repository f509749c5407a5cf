package polarfake

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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

	sequence      int64
	statePending  bool // a debounced customer.state_changed is on its way
	subscriptions []*subscription
	grants        []*grant
	seats         []*seat // of what the customer bought
	members       []*member
}

var customerTypes = []string{"individual", "team"}

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

func (c *customer) standing() (id string, created rank) {
	return c.ID, rank{at: c.CreatedAt.Time, sequence: c.sequence}
}

// Customers returns the documents of all live customers, oldest first.
func (f *Fake) Customers() []json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()

	return f.customers.documents()
}

// Customer returns the document of a customer, also of a deleted one, or nil.
func (f *Fake) Customer(id string) json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()

	if found, existed := f.customers.ever(id); existed {
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

// AnonymizeCustomer does what DELETE /v1/customers/{id}?anonymize=true does.
func (f *Fake) AnonymizeCustomer(id string) error {
	return act(f, &f.customers.shelf, id, func(c *customer) error {
		f.removeCustomer(c, true)
		return nil
	})
}

func (f *Fake) newCustomer(email string, now timestamp) *customer {
	c := &customer{
		ID: f.newID(), CreatedAt: now, Metadata: metadata{}, Type: "individual", OrganizationID: OrganizationID, sequence: f.next(),
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
	f.addMember(c, c.CreatedAt, email, name, externalID, roleOwner)
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
	return f.customers.named(r)
}

func (f *Fake) getCustomer(r *request) (any, error) {
	found, err := f.findCustomer(r)
	if err != nil {
		return nil, err
	}
	return found.document(), nil
}

// getCustomerView answers what stands below a customer, who is named by the id: the state, or a member.
func (f *Fake) getCustomerView(r *request) (any, error) {
	view := r.PathValue("view")
	memberID, isMember := strings.CutPrefix(view, "members/")
	switch {
	case isMember && isCustomerView(view):
		r.SetPathValue("member_id", memberID)
		return f.getMember(r)
	case view != "" && !isCustomerView(view):
		return nil, errNotFound()
	}
	found, err := f.findCustomer(r)
	if err != nil {
		return nil, err
	}
	return found.state(), nil
}

func isCustomerView(view string) bool {
	memberID, isMember := strings.CutPrefix(view, "members/")
	return view == "state" || isMember && memberID != "" && !strings.Contains(memberID, "/")
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

	if c.Type == "team" && deref(kind) == "individual" {
		body.failValue(body.at("type"), "Customer type cannot be downgraded from 'team' to 'individual'.", *kind)
		return nil, body.ruleErr()
	}
	f.revise(func() any { return c.document() }, &c.ModifiedAt, func() {
		if email != nil && *email != deref(c.Email) {
			f.customers.changeEmail(c, email)
			c.EmailVerified = false
		}
		if changesExternalID {
			f.customers.changeExternalID(c, externalID)
		}
		c.Type = *firstOf(kind, &c.Type)
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
	})
	f.syncOwner(c)
	f.emitCustomer(c, "customer.updated")
	return c.document(), nil
}

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
	f.removeCustomer(c, anonymize)
	return struct{}{}, nil
}

// removeCustomer deletes softly: the external id becomes free, but the webhook still tells it.
func (f *Fake) removeCustomer(c *customer, anonymize bool) {
	f.revokeEverything(c)
	now := f.now()
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
	paging := query.paging("created_at", "email", "name")
	if err := query.err(); err != nil {
		return nil, err
	}
	email, search := query.text("email"), query.text("query")

	found := f.customers.all
	if email != "" { // there is an index of these
		found = nil
		if match := f.customers.findEmail(email); match != nil {
			found = []*customer{match}
		}
	}
	return listing[*customer]{
		all: found, order: "created_at", render: f.customers.render,
		allow: func(c *customer) bool {
			isFound := search == "" || containsFold(deref(c.Email), search) || containsFold(deref(c.Name), search) ||
				strings.HasPrefix(deref(c.ExternalID), search)
			return isFound && organizations.allow(OrganizationID) && c.Metadata.matches(wanted) &&
				(active == nil || *active == c.isActive())
		},
		key: func(c *customer, by string) sortable {
			switch by {
			case "email":
				return byOptionalText(c.Email)
			case "name":
				return byOptionalText(c.Name)
			}
			return byTime(c.CreatedAt)
		},
	}.page(paging), nil
}

// isActive is Polar's filter "active": there is a subscription that runs, if only on trial or past due.
func (c *customer) isActive() bool {
	return slices.ContainsFunc(c.subscriptions, func(s *subscription) bool {
		return s.isRunning() || s.Status == subscriptionPastDue
	})
}
