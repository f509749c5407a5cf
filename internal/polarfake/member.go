package polarfake

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// member is a person who belongs to a customer; its exported fields are its document.
type member struct {
	ID         string     `json:"id"`
	CreatedAt  timestamp  `json:"created_at"`
	ModifiedAt *timestamp `json:"modified_at"`
	CustomerID string     `json:"customer_id"`
	Email      string     `json:"email"`
	Name       *string    `json:"name"`
	ExternalID *string    `json:"external_id"`
	Role       string     `json:"role"`

	owner    *customer
	sequence int64
}

// The roles of a member. A customer has one owner.
const (
	roleOwner          = "owner"
	roleBillingManager = "billing_manager"
	roleMember         = "member"
)

var memberRoles = []string{roleOwner, roleBillingManager, roleMember}

func (m *member) standing() (id string, created rank) {
	return m.ID, rank{at: m.CreatedAt.Time, sequence: m.sequence}
}

func (c *customer) ownerMember() *member {
	for _, m := range c.members {
		if m.Role == roleOwner {
			return m
		}
	}
	return nil
}

func (c *customer) memberByEmail(email string) *member {
	for _, m := range c.members {
		if strings.EqualFold(m.Email, email) {
			return m
		}
	}
	return nil
}

// addMember gives a customer a member and tells of it.
func (f *Fake) addMember(c *customer, now timestamp, email string, name, externalID *string, role string) *member {
	m := &member{
		ID: f.newID(), CreatedAt: now, CustomerID: c.ID, Email: email, Name: name, ExternalID: externalID, Role: role,
		owner: c, sequence: f.next(),
	}
	c.members = append(c.members, m)
	f.sales.members.add(m)
	f.emit("member.created", m.ID, m)
	return m
}

// syncOwner keeps the owner's e-mail that of an individual customer. Polar has no event for it: only a read shows it.
func (f *Fake) syncOwner(c *customer) {
	owner := c.ownerMember()
	if c.Type == "individual" && owner != nil && c.Email != nil && !strings.EqualFold(owner.Email, *c.Email) {
		owner.Email, owner.ModifiedAt = *c.Email, new(f.now())
	}
}

// Members returns the documents of all members, oldest first.
func (f *Fake) Members() []json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()

	return f.sales.members.documents()
}

// AddMember does what POST /v1/customers/{id}/members does with the body and returns the document. Only a team can
// have more members than its owner.
func (f *Fake) AddMember(customerID, body string) (json.RawMessage, error) {
	return f.call(f.createMember, body, map[string]string{"id": customerID})
}

// UpdateMember does what PATCH /v1/customers/{id}/members/{member_id} does with the body and returns the document.
func (f *Fake) UpdateMember(customerID, memberID, body string) (json.RawMessage, error) {
	return f.call(f.updateMember, body, map[string]string{"id": customerID, "member_id": memberID})
}

// DeleteMember does what DELETE /v1/customers/{id}/members/{member_id} does.
func (f *Fake) DeleteMember(customerID, memberID string) error {
	_, err := f.call(f.deleteMember, "", map[string]string{"id": customerID, "member_id": memberID})
	return err
}

func (f *Fake) listMembers(r *request) (any, error) {
	query := r.query()
	customers, externalIDs := query.texts("customer_id"), query.texts("external_customer_id")
	roles, paging := query.choices("role", memberRoles), query.paging("created_at")
	if err := query.err(); err != nil {
		return nil, err
	}
	return listing[*member]{
		all: f.sales.members.all, order: "created_at", render: f.sales.members.render,
		allow: func(m *member) bool {
			return customers.allow(m.CustomerID) && externalIDs.allowOptional(m.owner.ExternalID) && roles.allow(m.Role)
		},
	}.page(paging), nil
}

// findMember returns the member that a path names, by its id or by external ids.
func (f *Fake) findMember(r *request) (*member, error) {
	c, err := f.findCustomer(r)
	if err != nil {
		return nil, err
	}
	id, externalID := r.PathValue("member_id"), r.PathValue("member_external_id")
	at := slices.IndexFunc(c.members, func(m *member) bool {
		return externalID == "" && m.ID == id || externalID != "" && deref(m.ExternalID) == externalID
	})
	if at < 0 {
		return nil, errNotFound()
	}
	return c.members[at], nil
}

func (f *Fake) getMember(r *request) (any, error) { return f.findMember(r) }

func (f *Fake) createMember(r *request) (any, error) {
	c, err := f.findCustomer(r)
	if err != nil {
		return nil, err
	}
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	body.require("email")
	email, name := body.email("email"), body.text("name", 0, 256)
	externalID, role := body.nullableText("external_id"), body.choice("role", []string{roleMember, roleBillingManager})
	if err := body.err(); err != nil {
		return nil, err
	}
	if c.Type == "individual" && len(c.members) > 0 {
		return nil, &APIError{
			Status: http.StatusForbidden, Name: "NotPermitted",
			Detail: "Individual customers can only have one member (the owner). Upgrade to a team customer to add more members.",
		}
	}
	if existing := c.memberByEmail(deref(email)); existing != nil {
		return existing, nil
	}
	checkMemberID(body, c, externalID)
	if err := body.ruleErr(); err != nil {
		return nil, err
	}
	return f.addMember(c, f.now(), deref(email), name, externalID, *firstOf(role, new(roleMember))), nil
}

func checkMemberID(body fields, c *customer, externalID *string) {
	for _, other := range c.members {
		if externalID != nil && deref(other.ExternalID) == *externalID {
			body.failValue(body.at("external_id"), "A member with this external ID already exists.", *externalID)
		}
	}
}

func (f *Fake) updateMember(r *request) (any, error) {
	m, err := f.findMember(r)
	if err != nil {
		return nil, err
	}
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	name, email, role := body.text("name", 0, 256), body.email("email"), body.choice("role", memberRoles)
	if err := body.err(); err != nil {
		return nil, err
	}
	if email != nil {
		if other := m.owner.memberByEmail(*email); other != nil && other != m {
			body.failValue(body.at("email"), "A member with this email address already exists.", *email)
		}
	}
	if role != nil && *role != roleOwner && m.Role == roleOwner {
		body.failValue(body.at("role"), "Cannot change role. Customer must have exactly one owner.", *role)
	}
	if err := body.ruleErr(); err != nil {
		return nil, err
	}
	if name == nil && email == nil && role == nil {
		return m, nil // nothing to do, and nothing to tell
	}
	if deref(role) == roleOwner && m.Role != roleOwner {
		if former := m.owner.ownerMember(); former != nil { // of whom Polar tells nobody
			former.Role, former.ModifiedAt = roleBillingManager, new(f.now())
		}
	}
	f.revise(func() any { return m }, &m.ModifiedAt, func() {
		m.Name = firstOf(name, m.Name)
		m.Email = *firstOf(email, &m.Email)
		m.Role = *firstOf(role, &m.Role)
	})
	for _, s := range m.owner.seats {
		if s.member == m && email != nil {
			s.Email = email
		}
	}
	f.emit("member.updated", m.ID, m)
	return m, nil
}

func (f *Fake) deleteMember(r *request) (any, error) {
	m, err := f.findMember(r)
	if err != nil {
		return nil, err
	}
	if m.Role == roleOwner {
		body := fields{loc: []any{"body"}, problems: new([]Problem)}
		body.failValue(body.at(), "Cannot delete the only owner. Transfer ownership first.", m.ID)
		return nil, body.ruleErr()
	}
	c := m.owner
	c.members = slices.DeleteFunc(c.members, func(other *member) bool { return other == m })
	f.sales.members.retire(m)
	m.ModifiedAt = new(f.now())
	f.emit("member.deleted", m.ID, m)
	for _, s := range c.seats {
		if s.member == m {
			f.revokeSeat(s)
		}
	}
	for _, g := range c.grants {
		if g.member == m {
			f.revokeGrant(g)
		}
	}
	return struct{}{}, nil
}
