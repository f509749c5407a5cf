package polarfake_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/jsonschema/v6"

	"github.com/truenorth-dev/truenorth/internal/polartest"
)

// openAPI is Polar's own description of its API, compiled piece by piece.
type openAPI struct {
	err       error
	operation map[string]document // by method and path, with placeholders
	webhook   map[string]string   // reference of the payload, by event type
	schemas   document

	mu       sync.Mutex
	compiler *jsonschema.Compiler
	compiled map[string]*jsonschema.Schema // by reference
}

var loadOpenAPI = sync.OnceValue(func() *openAPI {
	api := &openAPI{operation: make(map[string]document), webhook: make(map[string]string), compiled: make(map[string]*jsonschema.Schema)}
	source, err := os.ReadFile(filepath.Join(polartest.Folder(), "polar", "openapi.json"))
	if err != nil {
		api.err = err
		return api
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(source))
	if err != nil {
		api.err = err
		return api
	}
	addNewer(asObject(parsed))
	api.schemas = asObject(parsed).object("components").object("schemas")
	api.compiler = jsonschema.NewCompiler()
	api.compiler.AssertFormat()
	api.compiler.UseRegexpEngine(compilePattern)
	if api.err = api.compiler.AddResource("openapi.json", parsed); api.err != nil {
		return api
	}
	for path, operations := range asObject(parsed).object("paths") {
		for method, operation := range asObject(operations) {
			api.operation[strings.ToUpper(method)+" "+path] = asObject(operation)
		}
	}
	for eventType, operations := range asObject(parsed).object("webhooks") {
		content := asObject(operations).object("post").object("requestBody").object("content")
		api.webhook[eventType] = content.object("application/json").object("schema").text("$ref")
	}
	return api
})

// addNewer adds what Polar's server knows and the document does not yet.
func addNewer(parsed document) {
	types := parsed.object("components").object("schemas").object("WebhookEventType")
	types["enum"] = append(types.list("enum"), "subscription.migrated")
	relaxDiscounts(parsed)
}

// relaxDiscounts lets a discount be of more than one of its variants: the document wants exactly one, yet every
// repeating discount is also of the form of one without an end.
func relaxDiscounts(node any) {
	switch node := node.(type) {
	case document:
		relaxDiscounts(map[string]any(node))
	case map[string]any:
		if variants, ok := node["oneOf"].([]any); ok && len(variants) > 0 &&
			strings.Contains(asObject(variants[0]).text("$ref"), "DiscountFixedOnceForeverDuration") {
			node["anyOf"] = variants
			delete(node, "oneOf")
		}
		for _, below := range node {
			relaxDiscounts(below)
		}
	case []any:
		for _, below := range node {
			relaxDiscounts(below)
		}
	}
}

// pattern is a regular expression, or one that Go cannot express and that is taken to match.
type pattern struct {
	source   string
	compiled *regexp.Regexp
}

func (p pattern) String() string { return p.source }
func (p pattern) MatchString(value string) bool {
	return p.compiled == nil || p.compiled.MatchString(value)
}

func compilePattern(source string) (jsonschema.Regexp, error) {
	compiled, err := regexp.Compile(source)
	if strings.Contains(source, "(?!") || strings.Contains(source, "(?=") {
		return pattern{source: source}, nil
	}
	return pattern{source: source, compiled: compiled}, err
}

func (api *openAPI) validate(reference string, body []byte) error {
	api.mu.Lock()
	defer api.mu.Unlock()

	schema, ok := api.compiled[reference]
	if !ok {
		var err error
		if schema, err = api.compiler.Compile("openapi.json" + reference); err != nil {
			return err
		}
		api.compiled[reference] = schema
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// openAPIOrNil returns nil where the shared folder is absent, and fails where it is there but unusable.
func openAPIOrNil(t *testing.T) *openAPI {
	t.Helper()

	api := loadOpenAPI()
	if polartest.Absent() {
		return nil
	}
	if api.err != nil {
		t.Fatalf("loading Polar's OpenAPI document: %v", api.err)
	}
	return api
}

// checkAnswer checks an answer of the API against the operation's response for the status.
func checkAnswer(t *testing.T, method, path string, status int, body []byte) {
	t.Helper()

	api := openAPIOrNil(t)
	if api == nil {
		return
	}
	operation := api.find(method, path)
	if operation == nil {
		t.Errorf("Polar has no operation %s %s", method, path)
		return
	}
	code := strconv.Itoa(status)
	response := operation.object("responses").object(code)
	if response == nil {
		if status < 400 {
			t.Errorf("%s %s answered %s, which Polar does not document", method, path, code)
		}
		return
	}
	reference := response.object("content").object("application/json").object("schema").text("$ref")
	if reference == "" {
		return
	}
	if err := api.validate(reference, body); err != nil {
		t.Errorf("%s %s answered %s, which is no %s: %v\n%s", method, path, code, reference, err, body)
	}
}

// find returns the operation of a concrete path.
func (api *openAPI) find(method, path string) document {
	path, _, _ = strings.Cut(path, "?")
	if operation, ok := api.operation[method+" "+path]; ok {
		return operation
	}
	for _, isLiteral := range []bool{true, false} {
		for key, operation := range api.operation {
			template, found := strings.CutPrefix(key, method+" ")
			if found && strings.Contains(template, "/external/") == isLiteral && matchTemplate(template, path) {
				return operation
			}
		}
	}
	return nil
}

func matchTemplate(template, path string) bool {
	want, got := strings.Split(template, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		isPlaceholder := strings.HasPrefix(want[i], "{") && got[i] != ""
		if want[i] != got[i] && !isPlaceholder {
			return false
		}
	}
	return true
}

// checkPayload checks a webhook against the document's webhook of its type. The document does not know
// subscription.migrated, which shows a subscription.
func checkPayload(t *testing.T, eventType string, body []byte) {
	t.Helper()

	api := openAPIOrNil(t)
	if api == nil {
		return
	}
	reference := api.webhook[eventType]
	if eventType == "subscription.migrated" {
		var envelope struct {
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(body, &envelope); err != nil {
			t.Errorf("a webhook %s: %v", eventType, err)
			return
		}
		reference, body = "#/components/schemas/Subscription", envelope.Data
	}
	if reference == "" {
		t.Errorf("Polar has no webhook %s", eventType)
		return
	}
	if err := api.validate(reference, body); err != nil {
		t.Errorf("a webhook %s is no %s: %v\n%s", eventType, reference, err, body)
	}
}

func TestAnswersAreCheckedAgainstPolarsOpenAPI(t *testing.T) {
	t.Parallel()

	api := openAPIOrNil(t)
	if api == nil {
		t.Skipf("%s is absent, so that answers and webhooks were not checked against Polar's OpenAPI document", polartest.Folder())
	}
	if err := api.validate("#/components/schemas/Checkout", []byte(`{"id":"x"}`)); err == nil {
		t.Error("an incomplete checkout was taken for a Checkout")
	}
}
