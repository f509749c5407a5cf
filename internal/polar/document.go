package polar

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
)

// ExampleID stands for every id in the examples that are generated from
// Polar's documentation. A document that bears it was made from an example.
const ExampleID = "3fa85f64-5717-4562-b3fc-2c963f66afa6"

// MetadataRequest is the name in a checkout's metadata under which truenorth
// keeps the id of its own request, so that a session can be found again.
const MetadataRequest = "truenorth_request"

// CheckoutStatus is the status of a checkout session. Polar may add others.
type CheckoutStatus string

// The statuses that Polar is known to have. A session may go from confirmed
// back to open, when the payment fails.
const (
	CheckoutStatusOpen      CheckoutStatus = "open"
	CheckoutStatusConfirmed CheckoutStatus = "confirmed" // the buyer pressed pay; not paid yet
	CheckoutStatusSucceeded CheckoutStatus = "succeeded"
	CheckoutStatusExpired   CheckoutStatus = "expired"
	CheckoutStatusFailed    CheckoutStatus = "failed"
)

// Terminal tells whether Polar never changes the status again.
func (s CheckoutStatus) Terminal() bool {
	return s == CheckoutStatusSucceeded || s == CheckoutStatusExpired || s == CheckoutStatusFailed
}

// Meta is what Polar's objects have in common. Missing times are zero.
type Meta struct {
	ID             uuid.UUID // never uuid.Nil
	OrganizationID string    // "" where the object has none
	CreatedAt      time.Time
	ModifiedAt     time.Time // zero until the first change
	DeletedAt      time.Time // zero while it lives
}

// ChangedAt is when the object last changed: ModifiedAt, or CreatedAt if it
// never did.
func (m Meta) ChangedAt() time.Time {
	if m.ModifiedAt.IsZero() {
		return m.CreatedAt
	}
	return m.ModifiedAt
}

// Checkout is a checkout session.
type Checkout struct {
	Meta
	Status             CheckoutStatus
	URL                string
	CustomerID         uuid.UUID // uuid.Nil while it has no customer
	ExternalCustomerID string    // as given when it was created; "" if none
	ExpiresAt          time.Time
	RequestID          uuid.UUID // of truenorth's request; uuid.Nil if it has no such stamp

	Raw    json.RawMessage // the document itself, byte for byte
	ReadAt time.Time       // by Polar's clock; zero if it was not read from the API
}

// Customer is a customer.
type Customer struct {
	Meta
	ExternalID string // our id of the customer; "" if none
	Email      string
	Name       string
	Type       string // "individual" or "team"

	Raw    json.RawMessage // the document itself, byte for byte
	ReadAt time.Time       // by Polar's clock; zero if it was not read from the API
}

// Product is a product.
type Product struct {
	Meta
	Name     string
	Archived bool

	Raw    json.RawMessage // the document itself, byte for byte
	ReadAt time.Time       // by Polar's clock; zero if it was not read from the API
}

// DecodeMeta reads what any object of Polar's has. It fails only if raw is not
// a JSON object with a UUID as its id; that holds for every decoder here.
func DecodeMeta(raw json.RawMessage) (Meta, error) {
	meta, _, err := decodeObject(raw)
	return meta, err
}

// DecodeCheckout reads a checkout session. raw is kept, not copied.
func DecodeCheckout(raw json.RawMessage) (Checkout, error) {
	meta, fields, err := decodeObject(raw)
	if err != nil {
		return Checkout{}, fmt.Errorf("decoding checkout: %w", err)
	}
	var metadata members
	_ = json.Unmarshal(fields["metadata"], &metadata) // not an object: no stamp
	return Checkout{
		Meta:               meta,
		Status:             CheckoutStatus(fields.text("status")),
		URL:                fields.text("url"),
		CustomerID:         fields.id("customer_id"),
		ExternalCustomerID: fields.text("external_customer_id"),
		ExpiresAt:          fields.time("expires_at"),
		RequestID:          metadata.id(MetadataRequest),
		Raw:                raw,
	}, nil
}

// DecodeCustomer reads a customer. raw is kept, not copied.
func DecodeCustomer(raw json.RawMessage) (Customer, error) {
	meta, fields, err := decodeObject(raw)
	if err != nil {
		return Customer{}, fmt.Errorf("decoding customer: %w", err)
	}
	return Customer{
		Meta:       meta,
		ExternalID: fields.text("external_id"),
		Email:      fields.text("email"),
		Name:       fields.text("name"),
		Type:       fields.text("type"),
		Raw:        raw,
	}, nil
}

// DecodeProduct reads a product. raw is kept, not copied.
func DecodeProduct(raw json.RawMessage) (Product, error) {
	meta, fields, err := decodeObject(raw)
	if err != nil {
		return Product{}, fmt.Errorf("decoding product: %w", err)
	}
	return Product{
		Meta:     meta,
		Name:     fields.text("name"),
		Archived: string(fields["is_archived"]) == "true",
		Raw:      raw,
	}, nil
}

// members are the members of an object by their exact name, which decoding
// into a struct would not heed. A value of another type than the one asked for
// reads as absent.
type members map[string]json.RawMessage

func decodeObject(raw json.RawMessage) (Meta, members, error) {
	var fields members
	if err := json.Unmarshal(raw, &fields); err != nil {
		// The error of encoding/json may quote the document.
		return Meta{}, nil, errors.New("the document is not a JSON object, or is nested too deeply")
	}
	meta := Meta{
		ID:             fields.id("id"),
		OrganizationID: fields.text("organization_id"),
		CreatedAt:      fields.time("created_at"),
		ModifiedAt:     fields.time("modified_at"),
		DeletedAt:      fields.time("deleted_at"),
	}
	if meta.ID == uuid.Nil {
		return Meta{}, nil, fmt.Errorf("the document has no UUID as its id, but %s", quoteShort(fields["id"]))
	}
	return meta, fields, nil
}

// text returns a string as Postgres can store it.
func (m members) text(name string) string {
	return decodeText(unquote(m[name]), math.MaxInt)
}

func (m members) time(name string) time.Time {
	return decodeTime(unquote(m[name]))
}

func (m members) id(name string) uuid.UUID {
	const length = 36 // uuid.Parse takes other forms too, which Polar does not use
	text := m.text(name)
	if len(text) != length {
		return uuid.Nil
	}
	id, err := uuid.Parse(text)
	if err != nil {
		return uuid.Nil
	}
	return id
}

// unquote returns what is between the quotes of a JSON string, escapes and
// all, or nil if the value is not a string.
func unquote(value json.RawMessage) []byte {
	if len(value) < 2 || value[0] != '"' {
		return nil
	}
	return value[1 : len(value)-1]
}

// quoteShort shows a JSON value in an error.
func quoteShort(value json.RawMessage) string {
	const longest = 60
	if value == nil {
		return "nothing"
	}
	return fmt.Sprintf("%q", value[:min(len(value), longest)])
}
