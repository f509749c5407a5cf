package polarfake

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The states of a seat.
const (
	seatPending = "pending"
	seatClaimed = "claimed"
	seatRevoked = "revoked"
)

// invitationTTL is how long a seat that was assigned can be claimed.
const invitationTTL = 24 * time.Hour

// seat is one of those that a purchase holds, and who sits on it; its exported fields are its document, but for what
// is looked up to show it. A seat that was revoked is given to the next who is assigned one.
type seat struct {
	CreatedAt                timestamp      `json:"created_at"`
	ModifiedAt               *timestamp     `json:"modified_at"`
	ID                       string         `json:"id"`
	SubscriptionID           *string        `json:"subscription_id"`
	OrderID                  *string        `json:"order_id"`
	Status                   string         `json:"status"`
	CustomerID               *string        `json:"customer_id"` // who bought it
	MemberID                 *string        `json:"member_id"`
	Email                    *string        `json:"email"`
	InvitationTokenExpiresAt *timestamp     `json:"invitation_token_expires_at"`
	ClaimedAt                *timestamp     `json:"claimed_at"`
	RevokedAt                *timestamp     `json:"revoked_at"`
	Metadata                 map[string]any `json:"seat_metadata"`

	bought   purchase
	member   *member
	sequence int64
}

// seatDocument shows a seat with who sits on it as they are now.
type seatDocument struct {
	seat

	Member        *member `json:"member"`
	CustomerEmail *string `json:"customer_email"`
}

func (s *seat) standing() (id string, created rank) {
	return s.ID, rank{at: s.CreatedAt.Time, sequence: s.sequence}
}

func (s *seat) document() seatDocument {
	return seatDocument{seat: *s, Member: s.member, CustomerEmail: s.Email}
}

// seats returns all that a purchase ever had assigned.
func (p purchase) seats() []*seat {
	var found []*seat
	for _, s := range p.owner().seats {
		if p.isOf(s.SubscriptionID, s.OrderID) {
			found = append(found, s)
		}
	}
	return found
}

// available is how many seats can still be assigned.
func (p purchase) available() int64 {
	left := deref(p.seatCount())
	for _, s := range p.seats() {
		if s.Status != seatRevoked {
			left--
		}
	}
	return max(0, left)
}

// Seats returns the documents of all seats, oldest first.
func (f *Fake) Seats() []json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()

	return f.sales.seats.documents()
}

// AssignSeat does what POST /v1/customer-seats does with the body and returns the document.
func (f *Fake) AssignSeat(body string) (json.RawMessage, error) {
	return f.call(f.assignSeat, body, nil)
}

// ClaimSeat does what the link in the invitation to a seat does.
func (f *Fake) ClaimSeat(id string) error {
	return act(f, &f.sales.seats, id, func(s *seat) error {
		if s.Status != seatPending || !s.InvitationTokenExpiresAt.After(f.now().Time) {
			return errSeat(http.StatusBadRequest, "InvalidInvitationToken", "Invalid or expired invitation token")
		}
		now := f.now()
		s.Status, s.ClaimedAt, s.ModifiedAt = seatClaimed, &now, &now
		f.tellClaimed(s)
		return nil
	})
}

// RevokeSeat does what DELETE /v1/customer-seats/{seat_id} does. The same seat can be assigned to somebody else.
func (f *Fake) RevokeSeat(id string) error {
	_, err := f.call(f.deleteSeat, "", map[string]string{"id": id})
	return err
}

func errSeat(status int, name, detail string) *APIError {
	return &APIError{Status: status, Name: name, Detail: detail}
}

func errNoSource() *APIError {
	return errSeat(http.StatusBadRequest, "BadRequest", "Either subscription_id or order_id must be provided")
}

// findPurchase returns what seats belong to.
func (f *Fake) findPurchase(subscriptionID, orderID *string) (purchase, error) {
	if subscriptionID != nil {
		if s, exists := f.sales.subscriptions.byID[*subscriptionID]; exists {
			return purchase{subscription: s}, nil
		}
		return purchase{}, errSeat(http.StatusNotFound, "ResourceNotFound", "Subscription not found")
	}
	if orderID != nil {
		if o, exists := f.sales.orders.byID[*orderID]; exists {
			return purchase{order: o}, nil
		}
		return purchase{}, errSeat(http.StatusNotFound, "ResourceNotFound", "Order not found")
	}
	return purchase{}, errNoSource()
}

// listSeats answers GET /v1/customer-seats, which is no list like the others: it needs to be told whose, and has no pages.
func (f *Fake) listSeats(r *request) (any, error) {
	query := r.query()
	subscriptions, orders := query.identifiers("subscription_id"), query.identifiers("order_id")
	if err := query.err(); err != nil {
		return nil, err
	}
	bought, err := f.findPurchase(firstIn(subscriptions), firstIn(orders))
	if err != nil {
		return nil, err
	}
	list := struct {
		Seats     []seatDocument `json:"seats"`
		Available int64          `json:"available_seats"`
		Total     int64          `json:"total_seats"`
	}{[]seatDocument{}, bought.available(), deref(bought.seatCount())}
	for _, s := range bought.seats() {
		list.Seats = append(list.Seats, s.document())
	}
	return list, nil
}

func firstIn(values filter) *string {
	if len(values) == 0 {
		return nil
	}
	return &values[0]
}

func (f *Fake) assignSeat(r *request) (any, error) {
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	subscriptionID, orderID := body.identifier("subscription_id"), body.identifier("order_id")
	email, memberID := body.email("email"), body.identifier("member_id")
	externalMemberID, isImmediate := body.nullableText("external_member_id"), body.boolean("immediate_claim", false)
	given := map[string]any{}
	if object, ok := body.object("metadata"); ok {
		given = object.values
	}
	if err := body.err(); err != nil {
		return nil, err
	}
	bought, err := f.findPurchase(subscriptionID, orderID)
	switch {
	case err != nil:
		return nil, err
	case bought.order != nil && !bought.order.Paid:
		return nil, errSeat(http.StatusBadRequest, "SeatNotAvailable", "Order must be paid before assigning seats")
	case bought.available() == 0:
		return nil, errSeat(http.StatusBadRequest, "SeatNotAvailable", "No available seats for "+*firstOf(subscriptionID, orderID))
	}
	sitter, err := f.seatMember(bought, email, memberID, externalMemberID)
	if err != nil {
		return nil, err
	}

	assigned := f.freeSeat(bought)
	now := f.now()
	assigned.Status, assigned.CustomerID, assigned.MemberID = seatPending, &bought.owner().ID, &sitter.ID
	assigned.member, assigned.Email, assigned.Metadata = sitter, new(sitter.Email), given
	assigned.InvitationTokenExpiresAt, assigned.ClaimedAt, assigned.RevokedAt = new(now.add(invitationTTL)), nil, nil
	if isImmediate {
		assigned.Status, assigned.ClaimedAt, assigned.InvitationTokenExpiresAt = seatClaimed, &now, nil
		f.tellClaimed(assigned)
	} else {
		f.emit("customer_seat.assigned", assigned.ID, assigned.document())
	}
	return assigned.document(), nil
}

// freeSeat returns a seat that was revoked, or a new one.
func (f *Fake) freeSeat(bought purchase) *seat {
	for _, s := range bought.seats() {
		if s.Status == seatRevoked {
			s.ModifiedAt = new(f.now())
			return s
		}
	}
	s := &seat{CreatedAt: f.now(), ID: f.newID(), bought: bought, sequence: f.next()}
	s.SubscriptionID, s.OrderID = bought.ids()
	bought.owner().seats = append(bought.owner().seats, s)
	f.sales.seats.add(s)
	return s
}

// seatMember finds or makes the member of the buyer whom a seat is for.
func (f *Fake) seatMember(bought purchase, email, memberID, externalID *string) (*member, error) {
	c := bought.owner()
	at := slices.IndexFunc(c.members, func(m *member) bool {
		switch {
		case memberID != nil:
			return m.ID == *memberID
		case externalID != nil && deref(m.ExternalID) == *externalID:
			return true
		}
		return email != nil && strings.EqualFold(m.Email, *email)
	})
	var found *member
	switch {
	case at >= 0:
		found = c.members[at]
		if email != nil && !strings.EqualFold(found.Email, *email) || externalID != nil && deref(found.ExternalID) != *externalID {
			return nil, errSeat(http.StatusBadRequest, "InvalidSeatAssignmentRequest", "The email and the external member ID are of different members")
		}
	case memberID != nil:
		return nil, errSeat(http.StatusNotFound, "MemberNotFound", "Member not found: "+*memberID)
	case email == nil && externalID != nil:
		return nil, errSeat(http.StatusNotFound, "MemberNotFound", "Member not found: "+*externalID)
	case email == nil:
		return nil, errSeat(http.StatusBadRequest, "InvalidSeatAssignmentRequest", "An email, member_id or external_member_id must be provided")
	default:
		return f.addMember(c, f.now(), *email, nil, externalID, roleMember), nil
	}
	for _, s := range bought.seats() {
		if s.member == found && s.Status != seatRevoked {
			return nil, errSeat(http.StatusBadRequest, "SeatAlreadyAssigned", "Seat already assigned to customer "+found.Email)
		}
	}
	return found, nil
}

// tellClaimed tells that a seat was claimed and gives its member what the purchase holds.
func (f *Fake) tellClaimed(s *seat) {
	f.emit("customer_seat.claimed", s.ID, s.document())
	if bought := s.bought; bought.subscription == nil || bought.subscription.isRunning() {
		f.grantTo(bought, s.member)
	}
}

// revokeSeat takes a seat, and what came with it, from whoever sits on it.
func (f *Fake) revokeSeat(s *seat) {
	if s.Status == seatRevoked {
		return
	}
	now, former := f.now(), s.member
	s.Status, s.RevokedAt, s.ModifiedAt = seatRevoked, &now, &now
	s.CustomerID, s.MemberID, s.member, s.Email = nil, nil, nil, nil
	f.emit("customer_seat.revoked", s.ID, s.document())
	for _, g := range s.bought.grants() {
		if g.member == former {
			f.revokeGrant(g)
		}
	}
}

func (f *Fake) deleteSeat(r *request) (any, error) {
	s, err := f.sales.seats.named(r)
	if err != nil {
		return nil, err
	}
	f.revokeSeat(s)
	return s.document(), nil
}
