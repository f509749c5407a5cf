package truenorth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/google/uuid"
)

// RequestMetadataKey is the checkout metadata key under which truenorth stamps
// a request's id, to find the session again after an unknown outcome. It is
// reserved: [ValidateParams] refuses it in an app's own metadata.
const RequestMetadataKey = "truenorth_request"

// CheckoutParams is the document that Polar takes to create a checkout
// session, field by field under Polar's own JSON names. Only Products is
// required; a zero field is left out, and a pointer tells zero from absent.
// Amounts are in the currency's minor unit (cents for usd and eur).
//
// Decoding and encoding lose nothing: a top-level field without a Go field of
// its own is kept in Extra, and a price that no price type holds is kept as a
// [RawPrice]. An explicit null reads as absent.
type CheckoutParams struct {
	// Products are the ids of the products to choose from, at least one and
	// each once. Polar selects the first.
	Products []uuid.UUID `json:"products"`
	// Prices replace a product's catalog prices for this session only. Every
	// key is one of Products.
	Prices Prices `json:"prices,omitzero"`

	// ExternalCustomerID is the app's own user id, compared exactly.
	ExternalCustomerID string `json:"external_customer_id,omitempty"`
	// CustomerID is a customer that exists at Polar; it goes before
	// ExternalCustomerID.
	CustomerID uuid.UUID `json:"customer_id,omitzero"`
	// CustomerName has at most 256 characters.
	CustomerName string `json:"customer_name,omitempty"`
	// CustomerEmail must also have a domain that receives mail; Polar looks
	// it up.
	CustomerEmail string `json:"customer_email,omitempty"`
	// CustomerIPAddress is the buyer's IPv4 or IPv6 address. Without it Polar
	// takes the currency and the tax country from the worker's address.
	CustomerIPAddress      string          `json:"customer_ip_address,omitempty"`
	CustomerBillingName    string          `json:"customer_billing_name,omitempty"`
	CustomerBillingAddress *BillingAddress `json:"customer_billing_address,omitempty"`
	// CustomerTaxID needs CustomerBillingAddress, whose country decides its
	// format.
	CustomerTaxID string `json:"customer_tax_id,omitempty"`
	// CustomerMetadata is copied to the customer: at most 50 keys.
	CustomerMetadata Values `json:"customer_metadata,omitzero"`
	// IsBusinessCustomer asks for the full billing address and name. Polar's
	// default is false.
	IsBusinessCustomer *bool `json:"is_business_customer,omitempty"`

	// Metadata is copied to the order and the subscription: at most 49 keys,
	// since truenorth adds RequestMetadataKey to Polar's limit of 50.
	Metadata Values `json:"metadata,omitzero"`
	// CustomFieldData answers the products' custom fields.
	CustomFieldData Values `json:"custom_field_data,omitzero"`

	// DiscountID is a discount to apply at once.
	DiscountID uuid.UUID `json:"discount_id,omitzero"`
	// AllowDiscountCodes lets the buyer enter a code. Polar's default is true.
	AllowDiscountCodes *bool `json:"allow_discount_codes,omitempty"`
	// RequireBillingAddress asks for more than the country. Polar's default
	// is false.
	RequireBillingAddress *bool `json:"require_billing_address,omitempty"`

	// Amount presets what the buyer pays for a custom price.
	Amount *int64 `json:"amount,omitempty"`
	// Seats, MinSeats and MaxSeats are for seat-based prices: 1 to 10,000.
	Seats    int `json:"seats,omitempty"`
	MinSeats int `json:"min_seats,omitempty"`
	MaxSeats int `json:"max_seats,omitempty"`
	// Units, MinUnits and MaxUnits are for unit-based prices: 1 or more.
	Units    int `json:"units,omitempty"`
	MinUnits int `json:"min_units,omitempty"`
	MaxUnits int `json:"max_units,omitempty"`

	// AllowTrial false turns off the trial of the product. Polar's default is
	// true.
	AllowTrial *bool `json:"allow_trial,omitempty"`
	// TrialInterval and TrialIntervalCount (1 to 1,000) go together and
	// replace the product's own trial.
	TrialInterval      TrialInterval `json:"trial_interval,omitempty"`
	TrialIntervalCount int           `json:"trial_interval_count,omitempty"`
	// SubscriptionID is a subscription on a free price to be upgraded.
	SubscriptionID uuid.UUID `json:"subscription_id,omitzero"`

	// SuccessURL is where the buyer goes after the payment: http or https, at
	// most 2,083 characters. Polar replaces {CHECKOUT_ID} anywhere in it.
	SuccessURL string `json:"success_url,omitempty"`
	// ReturnURL is the target of the checkout page's back button.
	ReturnURL string `json:"return_url,omitempty"`
	// EmbedOrigin is the origin of the page that embeds the checkout.
	EmbedOrigin string `json:"embed_origin,omitempty"`
	// Locale is a BCP 47 language tag such as en or pt-BR.
	Locale string `json:"locale,omitempty"`
	// Currency is the presentment currency: three lowercase letters.
	Currency string `json:"currency,omitempty"`

	// Extra holds top-level fields that Polar has and CheckoutParams has not
	// yet, by their JSON names. The worker sends them only if it is told
	// their names too (CHECKOUT_EXTRA_FIELDS).
	Extra map[string]json.RawMessage `json:"-"`
}

// BillingAddress is a customer's billing address.
type BillingAddress struct {
	Line1      string `json:"line1,omitempty"`
	Line2      string `json:"line2,omitempty"`
	PostalCode string `json:"postal_code,omitempty"`
	City       string `json:"city,omitempty"`
	// State of the US or province of Canada, with or without the country
	// prefix; free text elsewhere.
	State string `json:"state,omitempty"`
	// Country is required: ISO 3166-1 alpha-2, uppercase.
	Country string `json:"country"`
}

// TrialInterval is the unit of a trial's length.
type TrialInterval string

// The units of a trial's length.
const (
	TrialIntervalDay   TrialInterval = "day"
	TrialIntervalWeek  TrialInterval = "week"
	TrialIntervalMonth TrialInterval = "month"
	TrialIntervalYear  TrialInterval = "year"
)

// Values maps names to scalars: a string, a bool, an integer or float of any
// Go type, or a [json.Number]; in custom field data also nil. Decoding gives
// numbers as json.Number, so that none loses digits.
type Values map[string]any

// UnmarshalJSON decodes an object, its numbers as [json.Number].
func (v *Values) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode((*map[string]any)(v)); err != nil {
		return fmt.Errorf("decoding names and scalars: %w", err)
	}
	return nil
}

// JSON encodes p and checks the result as [ValidateParams] does; the names in
// Extra pass. The error is a [*ParamsError] if p is at fault in a field.
func (p CheckoutParams) JSON() ([]byte, error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding checkout params: %w", err)
	}
	if err := ValidateParams(raw, slices.Collect(maps.Keys(p.Extra))...); err != nil {
		return nil, err
	}
	return raw, nil
}

// MarshalJSON encodes p with Extra merged in. An Extra name that is a field of
// CheckoutParams is an error, as is an ExternalCustomerID that is no UTF-8:
// encoding would change it, and so change whose checkout it is.
func (p CheckoutParams) MarshalJSON() ([]byte, error) {
	if !utf8.ValidString(p.ExternalCustomerID) {
		return nil, errors.New("external_customer_id is not valid UTF-8")
	}
	type plain CheckoutParams
	known, err := json.Marshal(plain(p))
	if err != nil {
		return nil, fmt.Errorf("encoding fields: %w", err)
	}
	if len(p.Extra) == 0 {
		return known, nil
	}
	for name := range p.Extra {
		if isField(checkoutFields, name) {
			return nil, fmt.Errorf("extra field %q has a Go field of its own; set that one", name)
		}
	}
	extra, err := json.Marshal(p.Extra)
	if err != nil {
		return nil, fmt.Errorf("encoding extra fields: %w", err)
	}
	// Both are objects with at least one member each: join them.
	known[len(known)-1] = ','
	return append(known, extra[1:]...), nil
}

// UnmarshalJSON decodes what MarshalJSON encodes, and any other checkout
// document without loss. It checks types only; [ValidateParams] does the rest.
func (p *CheckoutParams) UnmarshalJSON(data []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return fmt.Errorf("decoding checkout params: %w", err)
	}
	// Names are matched here, exactly: encoding/json would also take "Amount"
	// for amount.
	var extra map[string]json.RawMessage
	for name, raw := range members {
		switch {
		case !isField(checkoutFields, name):
			if extra == nil {
				extra = make(map[string]json.RawMessage)
			}
			extra[name] = raw
			delete(members, name)
		case !keepsNumbers(name):
			members[name] = plainIntegers(raw)
		}
	}
	known, err := json.Marshal(members)
	if err != nil {
		return fmt.Errorf("decoding checkout params: %w", err)
	}
	type plain CheckoutParams
	decoded := plain{Extra: extra}
	if err := json.Unmarshal(known, &decoded); err != nil {
		return fmt.Errorf("decoding checkout params: %w", err)
	}
	*p = CheckoutParams(decoded)
	return nil
}

// keepsNumbers tells the fields that take numbers as they are written.
func keepsNumbers(name string) bool {
	switch name {
	case "prices", "metadata", "customer_metadata", "custom_field_data":
		return true
	}
	return false
}

// plainIntegers rewrites the integers in a JSON text that are written as 5.0
// or 5e0, which Polar takes and encoding/json does not, as 5.
func plainIntegers(raw []byte) []byte {
	if !bytes.ContainsAny(raw, ".eE") {
		return raw
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		end := i + 1
		switch c := raw[i]; {
		case c == '"':
			for ; end < len(raw) && raw[end] != '"'; end++ {
				if raw[end] == '\\' {
					end++
				}
			}
			end = min(end+1, len(raw))
			out = append(out, raw[i:end]...)
		case c == '-' || '0' <= c && c <= '9':
			for end < len(raw) && strings.IndexByte("+-.eE0123456789", raw[end]) >= 0 {
				end++
			}
			if n, ok := parseInteger(string(raw[i:end])); ok {
				out = fmt.Append(out, n)
			} else {
				out = append(out, raw[i:end]...)
			}
		default:
			out = append(out, c)
		}
		i = end
	}
	return out
}

// kind is the type of a JSON value, in words for a message.
type kind string

const (
	kindObject  kind = "an object"
	kindArray   kind = "an array"
	kindString  kind = "a string"
	kindNumber  kind = "a number"
	kindBoolean kind = "a boolean"
	kindNull    kind = "null"
)

// node is a JSON value. Unlike what encoding/json decodes to, it keeps numbers
// as they are written.
type node struct {
	kind    kind
	value   string           // of a string, or a number's literal
	members map[string]*node // of an object
	names   []string         // of the members, sorted
	items   []*node          // of an array
}

// has reports whether an object has a member that is not null.
func (n *node) has(name string) bool {
	m := n.members[name]
	return m != nil && m.kind != kindNull
}

// text returns a member that is a string, or "".
func (n *node) text(name string) string {
	if m := n.members[name]; m != nil && m.kind == kindString {
		return m.value
	}
	return ""
}

// integer returns a member that is an integer.
func (n *node) integer(name string) (int64, bool) {
	if m := n.members[name]; m != nil && m.kind == kindNumber {
		return parseInteger(m.value)
	}
	return 0, false
}

const (
	maxDepth       = 32
	maxNumberChars = 64
)

// parse reads raw. It adds the faults that encoding/json overlooks: members
// given twice, text that is no Unicode, and numbers beyond a float's range. It
// returns nil if there is no document to go on with.
func (v *validator) parse(raw []byte) *node {
	var valid json.RawMessage
	if err := json.Unmarshal(raw, &valid); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			v.addf("", "is not valid JSON at byte %d: %v", syntax.Offset, err)
		} else {
			v.addf("", "is not valid JSON: %v", err)
		}
		return nil
	}
	p := parser{v: v, raw: raw, dec: json.NewDecoder(bytes.NewReader(raw))}
	p.dec.UseNumber()
	n, err := p.parseValue("", 0)
	if err != nil {
		v.addf("", "cannot be read: %v", err)
		return nil
	}
	return n
}

// parser reads one JSON text that is known to be valid.
type parser struct {
	v   *validator
	raw []byte
	dec *json.Decoder
}

// token returns the next token, and the piece of raw that holds it.
func (p *parser) token() (json.Token, []byte, error) {
	start := p.dec.InputOffset()
	token, err := p.dec.Token()
	if err != nil {
		return nil, nil, fmt.Errorf("reading JSON: %w", err)
	}
	return token, p.raw[start:p.dec.InputOffset()], nil
}

func (p *parser) parseValue(path string, depth int) (*node, error) {
	token, source, err := p.token()
	if err != nil {
		return nil, err
	}
	switch token := token.(type) {
	case json.Delim:
		if depth++; depth > maxDepth {
			return nil, fmt.Errorf("it is nested deeper than %d levels", maxDepth)
		}
		if token == '{' {
			return p.parseObject(path, depth)
		}
		return p.parseArray(path, depth)
	case string:
		p.checkText(path, source)
		return &node{kind: kindString, value: token}, nil
	case json.Number:
		p.checkNumber(path, token)
		return &node{kind: kindNumber, value: token.String()}, nil
	case bool:
		return &node{kind: kindBoolean}, nil
	default:
		return &node{kind: kindNull}, nil
	}
}

// parseObject reads on after a {.
func (p *parser) parseObject(path string, depth int) (*node, error) {
	n := &node{kind: kindObject, members: make(map[string]*node)}
	for p.dec.More() {
		token, source, err := p.token()
		if err != nil {
			return nil, err
		}
		name, ok := token.(string)
		if !ok {
			return nil, fmt.Errorf("a member's name is %v", token)
		}
		path := member(path, name)
		p.checkText(path, source)
		value, err := p.parseValue(path, depth)
		if err != nil {
			return nil, err
		}
		if n.members[name] == nil {
			n.names = append(n.names, name)
		} else {
			p.v.addf(path, "is given twice")
		}
		n.members[name] = value
	}
	slices.Sort(n.names)
	_, _, err := p.token()
	return n, err
}

// parseArray reads on after a [.
func (p *parser) parseArray(path string, depth int) (*node, error) {
	n := &node{kind: kindArray}
	for p.dec.More() {
		item, err := p.parseValue(element(path, len(n.items)), depth)
		if err != nil {
			return nil, err
		}
		n.items = append(n.items, item)
	}
	_, _, err := p.token()
	return n, err
}

// checkText looks at a string's source for what Polar and Postgres refuse, and
// encoding/json replaces without a word.
func (p *parser) checkText(path string, source []byte) {
	if !utf8.Valid(source) {
		p.v.addf(path, "is not valid UTF-8")
		return
	}
	for i := 0; i < len(source); {
		if source[i] != '\\' {
			i++
			continue
		}
		if source[i+1] != 'u' {
			i += 2
			continue
		}
		r := escapedRune(source[i:])
		i += 6
		switch {
		case r == 0:
			p.v.addf(path, `has a NUL character (\u0000), which neither Polar nor Postgres takes`)
			return
		case utf16.IsSurrogate(r):
			if utf16.DecodeRune(r, escapedRune(source[i:])) == utf8.RuneError {
				p.v.addf(path, `has half a surrogate pair (\u%04x), which is no character`, r)
				return
			}
			i += 6
		}
	}
}

// escapedRune returns the code of the \uXXXX that source begins with, or -1.
func escapedRune(source []byte) rune {
	if len(source) < 6 || source[0] != '\\' || source[1] != 'u' {
		return -1
	}
	r, err := strconv.ParseUint(string(source[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(r)
}

// checkNumber keeps out numbers that would be other numbers at Polar or in
// Postgres.
func (p *parser) checkNumber(path string, n json.Number) {
	if len(n) > maxNumberChars {
		p.v.addf(path, "is a number of %d characters; at most %d are allowed", len(n), maxNumberChars)
		return
	}
	f, err := n.Float64()
	if err != nil || math.IsInf(f, 0) || f == 0 && strings.ContainsAny(mantissa(n.String()), "123456789") {
		p.v.addf(path, "is a number out of range")
	}
}

func mantissa(literal string) string {
	if e := strings.IndexAny(literal, "eE"); e >= 0 {
		return literal[:e]
	}
	return literal
}

// decimal is a decimal number: 0.digits times ten to the point, digits without
// a zero at either end. Zero has no digits.
type decimal struct {
	negative bool
	digits   string
	point    int
}

// parseDecimal reads a decimal number in the notation of JSON, or with more
// leading zeros or a +.
func parseDecimal(s string) (decimal, bool) {
	var d decimal
	if len(s) > maxNumberChars {
		return d, false
	}
	exponent := 0
	m := mantissa(s)
	if len(m) < len(s) {
		var err error
		exponent, err = strconv.Atoi(s[len(m)+1:])
		if err != nil || exponent < -9999 || exponent > 9999 {
			return d, false
		}
	}
	if m != "" && (m[0] == '-' || m[0] == '+') {
		d.negative = m[0] == '-'
		m = m[1:]
	}
	whole, fraction, hasPoint := strings.Cut(m, ".")
	if whole == "" || hasPoint && fraction == "" || strings.Trim(whole+fraction, "0123456789") != "" {
		return d, false
	}
	digits := strings.TrimLeft(whole+fraction, "0")
	d.point = len(whole) + exponent - (len(whole+fraction) - len(digits))
	d.digits = strings.TrimRight(digits, "0")
	if d.digits == "" {
		return decimal{}, true
	}
	return d, true
}

// whole is the number of digits before the point.
func (d decimal) whole() int { return max(d.point, 0) }

// places is the number of digits after the point.
func (d decimal) places() int { return max(len(d.digits)-d.point, 0) }

// parseInteger reads an integer of at most 64 bits, also as 5.0 or 5e0.
func parseInteger(literal string) (int64, bool) {
	d, ok := parseDecimal(literal)
	if !ok || d.places() > 0 || d.whole() > 19 {
		return 0, false
	}
	text := d.digits + strings.Repeat("0", d.whole()-len(d.digits))
	if text == "" {
		return 0, true
	}
	if d.negative {
		text = "-" + text
	}
	i, err := strconv.ParseInt(text, 10, 64)
	return i, err == nil
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// member returns the path of an object's member. A name that is not a plain
// word is quoted, and cut where it is long.
func member(path, name string) string {
	switch {
	case !plainName.MatchString(name):
		if runes := []rune(name); len(runes) > 64 {
			name = string(runes[:64]) + "…"
		}
		return path + "[" + strconv.Quote(name) + "]"
	case path == "":
		return name
	default:
		return path + "." + name
	}
}

// element returns the path of an array's element.
func element(path string, i int) string {
	return path + "[" + strconv.Itoa(i) + "]"
}
