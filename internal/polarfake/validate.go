package polarfake

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Problem is one entry in the detail of a 422, in the words of Polar's validation library.
type Problem struct {
	Type  string         `json:"type"`
	Loc   []any          `json:"loc"` // where: "body" or "query" and then names and indexes
	Msg   string         `json:"msg"`
	Input any            `json:"input"`
	Ctx   map[string]any `json:"ctx,omitempty"`
}

// fields reads a JSON object the way Polar's request models do: names it is not asked for are ignored, and every
// offence is collected instead of stopping at the first.
type fields struct {
	values   map[string]any // numbers are json.Number
	loc      []any
	problems *[]Problem
}

func (f fields) at(path ...any) []any { return append(slices.Clone(f.loc), path...) }

func (f fields) fail(loc []any, kind, message string, input any, ctx map[string]any) {
	*f.problems = append(*f.problems, Problem{Type: kind, Loc: loc, Msg: message, Input: input, Ctx: ctx})
}

// failValue reports a rule that is Polar's own.
func (f fields) failValue(loc []any, message string, input any) {
	f.fail(loc, "value_error", message, input, nil)
}

// has reports whether the name is there, be it with a null.
func (f fields) has(name string) bool {
	_, ok := f.values[name]
	return ok
}

// value returns what is there, unless that is null.
func (f fields) value(name string) (any, bool) {
	value := f.values[name]
	return value, value != nil
}

// require reports a problem unless the name is there.
func (f fields) require(name string) bool {
	if !f.has(name) {
		f.fail(f.at(name), "missing", "Field required", f.values, nil)
		return false
	}
	return true
}

// text returns a string, or nil when it is absent, null or wrong. maxLength 0 means unlimited.
func (f fields) text(name string, minLength, maxLength int) *string {
	value, ok := f.value(name)
	if !ok {
		return nil
	}
	text, ok := f.checkText(f.at(name), value, minLength, maxLength)
	if !ok {
		return nil
	}
	return &text
}

func (f fields) checkText(loc []any, value any, minLength, maxLength int) (string, bool) {
	text, ok := value.(string)
	if !ok {
		f.fail(loc, "string_type", "Input should be a valid string", value, nil)
		return "", false
	}
	length := utf8.RuneCountInString(text)
	switch {
	case strings.ContainsRune(text, 0):
		f.failValue(loc, "Value error, String should not contain NUL characters", value)
	case length < minLength:
		f.fail(loc, "string_too_short", fmt.Sprintf("String should have at least %d character%s", minLength, plural(minLength)),
			value, map[string]any{"min_length": minLength})
	case maxLength > 0 && length > maxLength:
		f.fail(loc, "string_too_long", fmt.Sprintf("String should have at most %d character%s", maxLength, plural(maxLength)),
			value, map[string]any{"max_length": maxLength})
	default:
		return text, true
	}
	return "", false
}

// nullableText is text with "" read as null.
func (f fields) nullableText(name string) *string {
	text := f.text(name, 0, 0)
	if text != nil && *text == "" {
		return nil
	}
	return text
}

// integer returns a whole number within the bounds, or nil when it is absent, null or wrong.
func (f fields) integer(name string, minimum, maximum int64) *int64 {
	value, ok := f.value(name)
	if !ok {
		return nil
	}
	number, ok := f.checkInteger(f.at(name), value, minimum, maximum)
	if !ok {
		return nil
	}
	return &number
}

func (f fields) checkInteger(loc []any, value any, minimum, maximum int64) (int64, bool) {
	var number int64
	switch given := value.(type) {
	case json.Number:
		float, err := given.Float64()
		if err != nil || math.Abs(float) > 1<<62 {
			f.fail(loc, "int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size", value, nil)
			return 0, false
		}
		if float != math.Trunc(float) {
			f.fail(loc, "int_from_float", "Input should be a valid integer, got a number with a fractional part", value, nil)
			return 0, false
		}
		number = int64(float)
		if exact, err := given.Int64(); err == nil {
			number = exact
		}
	case string:
		parsed, err := strconv.ParseInt(strings.TrimSpace(given), 10, 64)
		if err != nil {
			f.fail(loc, "int_parsing", "Input should be a valid integer, unable to parse string as an integer", value, nil)
			return 0, false
		}
		number = parsed
	default:
		f.fail(loc, "int_type", "Input should be a valid integer", value, nil)
		return 0, false
	}
	switch {
	case number < minimum:
		f.fail(loc, "greater_than_equal", fmt.Sprintf("Input should be greater than or equal to %d", minimum),
			value, map[string]any{"ge": minimum})
	case number > maximum:
		f.fail(loc, "less_than_equal", fmt.Sprintf("Input should be less than or equal to %d", maximum),
			value, map[string]any{"le": maximum})
	default:
		return number, true
	}
	return 0, false
}

// boolean returns a truth value. An explicit null is an offence, as it is at Polar.
func (f fields) boolean(name string, fallback bool) bool {
	if !f.has(name) {
		return fallback
	}
	switch given := f.values[name].(type) {
	case bool:
		return given
	case json.Number:
		if given == "0" || given == "1" {
			return given == "1"
		}
	case string:
		switch strings.ToLower(given) {
		case "true", "t", "yes", "y", "on", "1":
			return true
		case "false", "f", "no", "n", "off", "0":
			return false
		}
	default:
		f.fail(f.at(name), "bool_type", "Input should be a valid boolean", given, nil)
		return fallback
	}
	f.fail(f.at(name), "bool_parsing", "Input should be a valid boolean, unable to interpret input", f.values[name], nil)
	return fallback
}

// optionalBoolean is boolean for names that may be null.
func (f fields) optionalBoolean(name string) *bool {
	if _, ok := f.value(name); !ok {
		return nil
	}
	return new(f.boolean(name, false))
}

// identifier returns a UUID of version 4 in canonical form, or nil when it is absent, null or wrong.
func (f fields) identifier(name string) *string {
	value, ok := f.value(name)
	if !ok {
		return nil
	}
	id, ok := f.checkIdentifier(f.at(name), value)
	if !ok {
		return nil
	}
	return &id
}

func (f fields) checkIdentifier(loc []any, value any) (string, bool) {
	text, ok := value.(string)
	if !ok {
		f.fail(loc, "uuid_type", "UUID input should be a string, bytes or UUID object", value, nil)
		return "", false
	}
	id, err := uuid.Parse(text)
	if err != nil {
		f.fail(loc, "uuid_parsing", "Input should be a valid UUID, "+err.Error(), value, map[string]any{"error": err.Error()})
		return "", false
	}
	if id.Version() != 4 {
		f.fail(loc, "uuid_version", "UUID version 4 expected", value, map[string]any{"expected_version": 4})
		return "", false
	}
	return id.String(), true
}

// moment returns a date and time, or nil when it is absent, null or wrong.
func (f fields) moment(name string) *timestamp {
	text := f.text(name, 0, 0)
	if text == nil {
		return nil
	}
	moment := f.checkMoment(f.at(name), *text)
	if moment == nil {
		return nil
	}
	return &timestamp{moment.UTC().Truncate(time.Microsecond)}
}

func (f fields) checkMoment(loc []any, text string) *time.Time {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", time.DateOnly} {
		if moment, err := time.Parse(layout, text); err == nil {
			return &moment
		}
	}
	f.fail(loc, "datetime_from_date_parsing", "Input should be a valid datetime or date, invalid character", text, nil)
	return nil
}

// choice returns one of the allowed words, or nil when it is absent, null or wrong.
func (f fields) choice(name string, allowed []string) *string {
	value, ok := f.value(name)
	if !ok {
		return nil
	}
	text, ok := value.(string)
	if !ok || !slices.Contains(allowed, text) {
		f.failChoice(f.at(name), value, allowed)
		return nil
	}
	return &text
}

func (f fields) failChoice(loc []any, value any, allowed []string) {
	expected := "'" + strings.Join(allowed, "', '") + "'"
	if i := strings.LastIndex(expected, ", "); i >= 0 {
		expected = expected[:i] + " or" + expected[i+1:]
	}
	f.fail(loc, "enum", "Input should be "+expected, value, map[string]any{"expected": expected})
}

// object returns the fields of a nested object.
func (f fields) object(name string) (fields, bool) {
	value, ok := f.value(name)
	if !ok {
		return fields{}, false
	}
	return f.checkObject(f.at(name), value)
}

func (f fields) checkObject(loc []any, value any) (fields, bool) {
	values, ok := value.(map[string]any)
	if !ok {
		f.fail(loc, "model_attributes_type", "Input should be a valid dictionary or object to extract fields from", value, nil)
		return fields{}, false
	}
	return fields{values: values, loc: loc, problems: f.problems}, true
}

// list returns the elements of a list with at least minLength elements.
func (f fields) list(name string, minLength int) ([]any, bool) {
	return f.checkList(f.at(name), f.values[name], minLength)
}

func (f fields) checkList(loc []any, value any, minLength int) ([]any, bool) {
	list, ok := value.([]any)
	if !ok {
		f.fail(loc, "list_type", "Input should be a valid list", value, nil)
		return nil, false
	}
	if len(list) < minLength {
		f.fail(loc, "too_short", fmt.Sprintf("List should have at least %d item%s after validation, not %d",
			minLength, plural(minLength), len(list)), value,
			map[string]any{"field_type": "List", "min_length": minLength, "actual_length": len(list)})
		return nil, false
	}
	return list, true
}

// Polar's limits of metadata.
const (
	metadataMaxKeys        = 50
	metadataMaxKeyLength   = 40
	metadataMaxValueLength = 500
)

// metadata returns an object of strings, numbers and booleans; empty when absent.
func (f fields) metadata(name string) metadata {
	if !f.has(name) {
		return metadata{}
	}
	loc := f.at(name)
	values, ok := f.values[name].(map[string]any)
	if !ok {
		f.fail(loc, "dict_type", "Input should be a valid dictionary", f.values[name], nil)
		return metadata{}
	}
	if len(values) > metadataMaxKeys {
		f.fail(loc, "too_long", fmt.Sprintf("Dictionary should have at most %d items after validation, not %d",
			metadataMaxKeys, len(values)), values,
			map[string]any{"field_type": "Dictionary", "max_length": metadataMaxKeys, "actual_length": len(values)})
	}
	for _, key := range sortedKeys(values) {
		f.checkText(append(slices.Clone(loc), key, "[key]"), key, 1, metadataMaxKeyLength)
		switch value := values[key].(type) {
		case bool, json.Number:
		default:
			f.checkText(append(slices.Clone(loc), key), value, 1, metadataMaxValueLength)
		}
	}
	return values
}

// nullableMetadata is metadata with null read as absent.
func (f fields) nullableMetadata(name string) metadata {
	if _, ok := f.value(name); !ok {
		return metadata{}
	}
	return f.metadata(name)
}

// ip returns an address of version 4 or 6.
func (f fields) ip(name string) *string {
	value, ok := f.value(name)
	if !ok {
		return nil
	}
	text, _ := value.(string)
	parsed, err := netip.ParseAddr(text)
	if err != nil {
		f.fail(f.at(name), "ip_any_address", "value is not a valid IPv4 or IPv6 address", value, nil)
		return nil
	}
	return new(parsed.String())
}

// address returns a billing address.
func (f fields) address(name string) *address {
	given, ok := f.object(name)
	if !ok {
		return nil
	}
	if !given.require("country") {
		return nil
	}
	country := given.choice("country", billingCountries)
	if country == nil {
		if _, ok := given.value("country"); !ok {
			given.failChoice(given.at("country"), nil, billingCountries)
		}
		return nil
	}
	return &address{
		Line1: given.text("line1", 0, 0), Line2: given.text("line2", 0, 0), PostalCode: given.text("postal_code", 0, 0),
		City: given.text("city", 0, 0), State: given.text("state", 0, 0), Country: *country,
	}
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

func sortedKeys[V any](values map[string]V) []string {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
