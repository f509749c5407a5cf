package truenorth

import (
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

// ParamsError says which fields of a checkout document are at fault. Its text
// is one line, and holds none of the customer's data.
type ParamsError struct {
	// Fields has at least one and at most 20 faults, in an order that depends
	// on the document's content alone.
	Fields []FieldError `json:"fields"`
}

// FieldError is one fault of a checkout document.
type FieldError struct {
	// Path is where: "seats", "products[1]", "metadata.plan",
	// "prices.<product id>[0].price_amount"; empty for the whole document.
	Path string `json:"path"`
	// Message says what is wrong and what is allowed; it follows on the path
	// as in a sentence.
	Message string `json:"message"`
}

func (e *ParamsError) Error() string {
	faults := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		path := f.Path
		if path == "" {
			path = "the document"
		}
		faults[i] = path + " " + f.Message
	}
	return "invalid checkout params: " + strings.Join(faults, "; ")
}

const (
	maxParamsBytes = 64 << 10
	maxFaults      = 20

	// Polar sets no limit, but the mirror's index on external ids does
	// (Postgres: 2,704 bytes), and nobody's user id is that long.
	maxExternalIDBytes = 2000

	// Polar takes 50 keys.
	maxMetadataKeys     = 50
	maxMetadataKeyChars = 40
	maxMetadataChars    = 500

	maxURLChars = 2083

	maxInt   = math.MaxInt64
	maxInt32 = math.MaxInt32
)

// ValidateParams checks a checkout document, Polar's own JSON, before it is
// queued; the error is a [*ParamsError]. It is stricter than Polar where Polar
// would lose something without a word: it refuses top-level fields and price
// fields that it does not know, and fields given twice. The names in extra are
// top-level fields that pass although it does not know them.
//
// It cannot know what only Polar knows: whether a product or a customer
// exists, whether mail reaches the domain of an address, and the least amount
// in currencies other than usd and eur.
func ValidateParams(raw []byte, extra ...string) error {
	v := &validator{}
	if len(raw) > maxParamsBytes {
		v.addf("", "has %d bytes; at most %d are allowed", len(raw), maxParamsBytes)
	} else if doc := v.parse(raw); doc != nil {
		checkParams(v, doc, extra)
	}
	if len(v.errs) == 0 {
		return nil
	}
	return &ParamsError{Fields: v.errs[:min(len(v.errs), maxFaults)]}
}

// validator collects the faults of one document.
type validator struct {
	errs []FieldError
}

func (v *validator) addf(path, format string, args ...any) {
	v.errs = append(v.errs, FieldError{Path: path, Message: fmt.Sprintf(format, args...)})
}

// is adds a fault unless n is of kind k.
func (v *validator) is(path string, n *node, k kind) bool {
	if n.kind != k {
		v.addf(path, "must be %s, is %s", k, n.kind)
		return false
	}
	return true
}

// check adds what is wrong with the value at path.
type check func(v *validator, path string, n *node)

// field is a member that an object may have.
type field struct {
	name     string
	required bool
	nullable bool // null reads as absent
	check    check
}

func isField(fields []field, name string) bool {
	return slices.ContainsFunc(fields, func(f field) bool { return f.name == name })
}

// object checks an object's members one by one, in the order of fields. If it
// is not open, members not in fields are faults.
func (v *validator) object(path string, n *node, fields []field, open bool) {
	if !v.is(path, n, kindObject) {
		return
	}
	for _, f := range fields {
		m := n.members[f.name]
		switch {
		case m == nil && f.required:
			v.addf(member(path, f.name), "is required")
		case m == nil:
		case m.kind == kindNull && f.nullable:
		case m.kind == kindNull:
			v.addf(member(path, f.name), "must not be null; leave it out for Polar's default")
		default:
			f.check(v, member(path, f.name), m)
		}
	}
	if open {
		return
	}
	for _, name := range n.names {
		if !isField(fields, name) {
			v.addf(member(path, name), "is not a field that Polar has here%s", v.suggestion(name, fields))
		}
	}
}

// checkoutFields are the top-level fields of a checkout document, in the order
// in which faults are told.
var checkoutFields = []field{
	{name: "products", required: true, check: checkProducts},
	{name: "prices", nullable: true, check: checkPrices},
	{name: "external_customer_id", nullable: true, check: checkExternalID},
	{name: "customer_id", nullable: true, check: checkUUID},
	{name: "customer_name", nullable: true, check: optionalText(256)},
	{name: "customer_email", nullable: true, check: text(254, emailFault)},
	{name: "customer_ip_address", nullable: true, check: text(0, ipFault)},
	{name: "customer_billing_name", nullable: true, check: optionalText(0)},
	{name: "customer_billing_address", nullable: true, check: func(v *validator, path string, n *node) {
		v.object(path, n, addressFields, false)
	}},
	{name: "customer_tax_id", nullable: true, check: optionalText(0)},
	{name: "customer_metadata", check: checkMetadata},
	{name: "is_business_customer", check: boolean},
	{name: "metadata", check: checkOwnMetadata},
	{name: "custom_field_data", check: checkCustomFieldData},
	{name: "discount_id", nullable: true, check: checkUUID},
	{name: "allow_discount_codes", check: boolean},
	{name: "require_billing_address", check: boolean},
	{name: "amount", nullable: true, check: integer(0, maxInt)},
	{name: "seats", nullable: true, check: integer(1, 10_000)},
	{name: "min_seats", nullable: true, check: integer(1, 10_000)},
	{name: "max_seats", nullable: true, check: integer(1, 10_000)},
	{name: "units", nullable: true, check: integer(1, maxInt32)},
	{name: "min_units", nullable: true, check: integer(1, maxInt32)},
	{name: "max_units", nullable: true, check: integer(1, maxInt32)},
	{name: "allow_trial", check: boolean},
	{name: "trial_interval", nullable: true, check: oneOf("day", "week", "month", "year")},
	{name: "trial_interval_count", nullable: true, check: integer(1, 1000)},
	{name: "subscription_id", nullable: true, check: checkUUID},
	{name: "success_url", nullable: true, check: text(maxURLChars, urlFault)},
	{name: "return_url", nullable: true, check: text(maxURLChars, urlFault)},
	{name: "embed_origin", nullable: true, check: text(0)},
	{name: "locale", nullable: true, check: text(0, localeFault)},
	{name: "currency", nullable: true, check: checkCurrency},
}

var addressFields = []field{
	{name: "country", required: true, check: text(0, countryFault)},
	{name: "line1", nullable: true, check: optionalText(0)},
	{name: "line2", nullable: true, check: optionalText(0)},
	{name: "postal_code", nullable: true, check: optionalText(0)},
	{name: "city", nullable: true, check: optionalText(0)},
	{name: "state", nullable: true, check: optionalText(0)},
}

// replacedFields are older names that Polar still takes. One form is enough:
// whoever reads params finds every fact under one name.
var replacedFields = map[string]string{
	"customer_external_id": "external_customer_id",
	"product_id":           "products",
	"product_price_id":     "products",
}

func checkParams(v *validator, doc *node, extra []string) {
	if !v.is("", doc, kindObject) {
		return
	}
	v.object("", doc, checkoutFields, true)
	for _, name := range doc.names {
		if isField(checkoutFields, name) {
			continue
		}
		if use, ok := replacedFields[name]; ok {
			v.addf(member("", name), "is an old name; use %s", use)
		} else if !slices.Contains(extra, name) {
			v.addf(member("", name), "is not a field that we know, and Polar would ignore it without a word%s",
				v.suggestion(name, checkoutFields))
		}
	}

	checkPricedProducts(v, doc)
	if taxID := doc.text("customer_tax_id"); taxID != "" {
		address := doc.members["customer_billing_address"]
		if address == nil || address.kind == kindNull {
			v.addf("customer_tax_id", "needs customer_billing_address, whose country decides its format")
		}
	}
	checkOrder(v, "", doc, "min_seats", "max_seats")
	checkOrder(v, "", doc, "min_seats", "seats")
	checkOrder(v, "", doc, "seats", "max_seats")
	checkOrder(v, "", doc, "min_units", "max_units")
	checkOrder(v, "", doc, "min_units", "units")
	checkOrder(v, "", doc, "units", "max_units")
	switch interval, count := doc.has("trial_interval"), doc.has("trial_interval_count"); {
	case interval && !count:
		v.addf("trial_interval", "needs trial_interval_count")
	case count && !interval:
		v.addf("trial_interval_count", "needs trial_interval")
	}
}

// checkPricedProducts adds a fault for each key of prices not in products.
func checkPricedProducts(v *validator, doc *node) {
	prices, products := doc.members["prices"], doc.members["products"]
	if prices == nil || products == nil {
		return
	}
	listed := make(map[string]bool)
	for _, product := range products.items {
		listed[strings.ToLower(product.value)] = true
	}
	for _, product := range prices.names {
		if id, ok := canonicalUUID(product); ok && !listed[id] {
			v.addf(member("prices", product), "has prices, and is not one of products")
		}
	}
}

func checkProducts(v *validator, path string, n *node) {
	nonEmpty(checkUUID)(v, path, n)
	first := make(map[string]int)
	for i, product := range n.items {
		id, ok := canonicalUUID(product.value)
		if !ok {
			continue
		}
		if j, seen := first[id]; seen {
			v.addf(element(path, i), "is the same product as %s", element(path, j))
			continue
		}
		first[id] = i
	}
}

func checkExternalID(v *validator, path string, n *node) {
	text(0)(v, path, n)
	if len(n.value) > maxExternalIDBytes {
		v.addf(path, "has %d bytes; at most %d are allowed, so that it can be indexed", len(n.value), maxExternalIDBytes)
	}
}

// checkOwnMetadata checks the app's metadata, in which truenorth's own key has
// to find a place.
func checkOwnMetadata(v *validator, path string, n *node) {
	checkMetadata(v, path, n)
	if n.members[RequestMetadataKey] != nil {
		v.addf(member(path, RequestMetadataKey), "is reserved for truenorth's own stamp; choose another key")
	} else if len(n.names) == maxMetadataKeys {
		v.addf(path, "has %d keys; at most %d are allowed, since truenorth adds %s and Polar takes %d",
			len(n.names), maxMetadataKeys-1, RequestMetadataKey, maxMetadataKeys)
	}
}

func checkMetadata(v *validator, path string, n *node) {
	if !v.is(path, n, kindObject) {
		return
	}
	if len(n.names) > maxMetadataKeys {
		v.addf(path, "has %d keys; Polar takes at most %d", len(n.names), maxMetadataKeys)
	}
	for _, key := range n.names {
		path, value := member(path, key), n.members[key]
		if chars := utf8.RuneCountInString(key); chars == 0 || chars > maxMetadataKeyChars {
			v.addf(path, "has a key of %d characters; a key has 1 to %d", chars, maxMetadataKeyChars)
		}
		switch value.kind {
		case kindString:
			if chars := utf8.RuneCountInString(value.value); chars == 0 || chars > maxMetadataChars {
				v.addf(path, "has %d characters; a string has 1 to %d (leave the key out for none)", chars, maxMetadataChars)
			}
		case kindNumber, kindBoolean:
		default:
			v.addf(path, "must be a string, a number or a boolean, is %s", value.kind)
		}
	}
}

func checkCustomFieldData(v *validator, path string, n *node) {
	if !v.is(path, n, kindObject) {
		return
	}
	for _, slug := range n.names {
		switch value := n.members[slug]; value.kind {
		case kindString, kindNumber, kindBoolean, kindNull:
		default:
			v.addf(member(path, slug), "must be a string, a number, a boolean or null, is %s", value.kind)
		}
	}
}

// checkOrder adds a fault if both members are integers and low is more than
// high.
func checkOrder(v *validator, path string, n *node, low, high string) {
	x, ok := n.integer(low)
	y, ok2 := n.integer(high)
	if ok && ok2 && x > y {
		v.addf(member(path, low), "must not be more than %s, is %d against %d", high, x, y)
	}
}

// boolean is the check of a boolean.
func boolean(v *validator, path string, n *node) {
	v.is(path, n, kindBoolean)
}

// integer makes the check of an integer from least to most.
func integer(least, most int64) check {
	return func(v *validator, path string, n *node) {
		if n.kind != kindNumber {
			v.addf(path, "must be an integer, is %s", n.kind)
			return
		}
		i, ok := parseInteger(n.value)
		switch {
		case !ok:
			v.addf(path, "must be an integer of at most 64 bits")
		case i < least && most == maxInt:
			v.addf(path, "must be at least %d, is %d", least, i)
		case i < least || i > most:
			v.addf(path, "must be from %d to %d, is %d", least, most, i)
		}
	}
}

// decimalLimits are the limits of a decimal amount: the digits before and
// after the point, and whether it must be more than 0 or just not less.
type decimalLimits struct {
	positive      bool
	whole, places int
}

// decimalNumber makes the check of a decimal number in a JSON number or string.
func decimalNumber(limits decimalLimits) check {
	return func(v *validator, path string, n *node) {
		if n.kind != kindNumber && n.kind != kindString {
			v.addf(path, "must be a decimal number, is %s", n.kind)
			return
		}
		d, ok := parseDecimal(n.value)
		switch {
		case !ok:
			v.addf(path, `must be a decimal number such as "0.0005"`)
		case d.negative:
			v.addf(path, "must not be negative")
		case limits.positive && d.digits == "":
			v.addf(path, "must be more than 0")
		case d.whole() > limits.whole:
			v.addf(path, "has %d digits before the point; at most %d are allowed", d.whole(), limits.whole)
		case d.places() > limits.places && limits.places == 0:
			v.addf(path, "must be a whole number of minor units")
		case d.places() > limits.places:
			v.addf(path, "has %d decimal places; at most %d are allowed", d.places(), limits.places)
		}
	}
}

// nonEmpty makes the check of an array of one element or more.
func nonEmpty(item check) check {
	return func(v *validator, path string, n *node) {
		if !v.is(path, n, kindArray) {
			return
		}
		if len(n.items) == 0 {
			v.addf(path, "is empty; at least 1 element is needed")
		}
		for i, n := range n.items {
			item(v, element(path, i), n)
		}
	}
}

// oneOf makes the check of a string out of a few.
func oneOf(values ...string) check {
	return func(v *validator, path string, n *node) {
		if v.is(path, n, kindString) && !slices.Contains(values, n.value) {
			v.addf(path, "must be one of %s", strings.Join(values, ", "))
		}
	}
}

// text makes the check of a string that is not empty, has at most maxChars
// characters (0: any number), and in which no rule finds a fault. A fault does
// not quote the value: it may be personal.
func text(maxChars int, rules ...func(string) string) check {
	return func(v *validator, path string, n *node) {
		if !v.is(path, n, kindString) {
			return
		}
		if n.value == "" {
			v.addf(path, "must not be empty; leave it out for none")
			return
		}
		optionalText(maxChars)(v, path, n)
		for _, rule := range rules {
			if fault := rule(n.value); fault != "" {
				v.addf(path, "%s", fault)
			}
		}
	}
}

// optionalText makes the check of a string that Polar takes as absent when it
// is empty.
func optionalText(maxChars int) check {
	return func(v *validator, path string, n *node) {
		if !v.is(path, n, kindString) {
			return
		}
		if chars := utf8.RuneCountInString(n.value); maxChars > 0 && chars > maxChars {
			v.addf(path, "has %d characters; at most %d are allowed", chars, maxChars)
		}
	}
}

func checkUUID(v *validator, path string, n *node) {
	if !v.is(path, n, kindString) {
		return
	}
	if _, ok := canonicalUUID(n.value); !ok {
		v.addf(path, "is not a UUID")
	}
}

// canonicalUUID returns s in lowercase if it is a UUID of 36 characters and
// not the nil one.
func canonicalUUID(s string) (string, bool) {
	if len(s) != 36 { // uuid.Parse also takes other notations
		return "", false
	}
	id, err := uuid.Parse(s)
	if err != nil || id == uuid.Nil {
		return "", false
	}
	return id.String(), true
}

// emailFault looks at the form only; Polar also asks the DNS.
func emailFault(s string) string {
	at := strings.LastIndexByte(s, '@')
	local, domain := s[:max(at, 0)], s[at+1:]
	labels := strings.Split(domain, ".")
	if local == "" || len(local) > 64 || len(labels) < 2 || slices.Contains(labels, "") ||
		strings.ContainsFunc(s, isSpaceOrControl) || strings.ContainsAny(s, "<>,;") {
		return "is not an e-mail address"
	}
	return ""
}

func ipFault(s string) string {
	if addr, err := netip.ParseAddr(s); err != nil || addr.Zone() != "" {
		return "is not an IPv4 or IPv6 address"
	}
	return ""
}

func urlFault(s string) string {
	u, err := url.Parse(strings.ReplaceAll(s, "{CHECKOUT_ID}", "checkout"))
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" ||
		strings.ContainsFunc(s, isSpaceOrControl) {
		return "is not an absolute http or https URL"
	}
	return ""
}

func isSpaceOrControl(r rune) bool { return r <= ' ' || r == 0x7f }

var (
	countryPattern  = regexp.MustCompile(`^[A-Z]{2}$`)
	currencyPattern = regexp.MustCompile(`^[a-z]{3}$`)
	localePattern   = regexp.MustCompile(`^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}$`)
)

func countryFault(s string) string {
	if !countryPattern.MatchString(s) {
		return "must be an ISO 3166-1 country of two uppercase letters, such as DE"
	}
	return ""
}

func localeFault(s string) string {
	if !localePattern.MatchString(s) {
		return "must be a BCP 47 language tag such as en or pt-BR"
	}
	return ""
}

func checkCurrency(v *validator, path string, n *node) {
	if v.is(path, n, kindString) && !currencyPattern.MatchString(n.value) {
		v.addf(path, "must be a currency of three lowercase letters, such as usd")
	}
}

// suggestion returns "; did you mean ...?" if a field's name is near to name.
// It does not look for faults that nobody will be told: a document of unknown
// fields only would cost a second.
func (v *validator) suggestion(name string, fields []field) string {
	if len(name) > 64 || len(v.errs) >= maxFaults {
		return ""
	}
	fold := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "")) }
	best, nearest := "", 1+max(1, len(name)/6)
	for _, f := range fields {
		if d := editDistance(fold(name), fold(f.name)); d < nearest {
			best, nearest = f.name, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// editDistance is the Levenshtein distance of two strings, in bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substituted := diagonal
			if a[i] != b[j] {
				substituted++
			}
			diagonal = row[j+1]
			row[j+1] = min(substituted, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
