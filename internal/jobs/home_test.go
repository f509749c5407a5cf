package jobs_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polartest"
)

// schema is a part of Polar's OpenAPI document.
type schema map[string]any

func (s schema) child(name string) schema { c, _ := s[name].(map[string]any); return c }

// published is Polar's OpenAPI document. The test skips only where its whole folder is absent.
func published(t *testing.T) schema {
	t.Helper()
	var document schema
	if err := json.Unmarshal(polartest.Read(t, "openapi.json"), &document); err != nil {
		t.Fatal(err)
	}
	return document
}

// resolve follows references, and takes the first alternative that is not null.
func (s schema) resolve(document schema) schema {
	for range 10 {
		if reference, ok := s["$ref"].(string); ok {
			s = document.child("components").child("schemas").child(strings.TrimPrefix(reference, "#/components/schemas/"))
			continue
		}
		alternatives, _ := s["anyOf"].([]any)
		if alternatives == nil {
			alternatives, _ = s["oneOf"].([]any)
		}
		if len(alternatives) == 0 {
			return s
		}
		for _, alternative := range alternatives {
			if a, _ := alternative.(map[string]any); a["type"] != "null" {
				s = a
				break
			}
		}
	}
	return s
}

// value makes up a value of a schema, with every property that is not an object.
func (s schema) value(document schema, depth int) any {
	s = s.resolve(document)
	if constant, ok := s["const"]; ok {
		return constant
	}
	if choices, ok := s["enum"].([]any); ok {
		return choices[0]
	}
	switch s["type"] {
	case "string":
		switch s["format"] {
		case "uuid", "uuid4":
			return uuid.NewString()
		case "date-time":
			return "2026-08-22T09:00:00.123456Z"
		case "date":
			return "2026-08-22"
		}
		return "some text"
	case "integer", "number":
		return 17
	case "boolean":
		return true
	case "array":
		return []any{}
	case "object":
		object := map[string]any{}
		if depth == 0 {
			return object
		}
		for name, property := range s.child("properties") {
			p, _ := property.(map[string]any)
			object[name] = schema(p).value(document, depth-1)
		}
		return object
	}
	return nil
}

// TestEveryEventTypeThatPolarPublishesHasItsHome sends one event of each type, made up from Polar's own description,
// and looks for its object, column by column.
func TestEveryEventTypeThatPolarPublishesHasItsHome(t *testing.T) {
	t.Parallel()
	document := published(t)
	webhooks := document.child("webhooks")
	if len(webhooks) < 41 {
		t.Fatalf("Polar's document has %d webhooks", len(webhooks))
	}
	w := offline(t)
	bodies := map[string]map[string]any{}
	properties := map[string]schema{}
	send := func(eventType string, payload schema) {
		data := payload.child("properties").child("data").resolve(document)
		object, ok := data.value(document, 1).(map[string]any)
		if !ok {
			t.Fatalf("%s: no object can be made up from Polar's description", eventType)
		}
		object["id"], object["deleted_at"] = uuid.NewString(), nil
		if _, ok := object["organization_id"]; ok {
			object["organization_id"] = "1dbfc517-0bbf-4301-9ba8-555ca42b9737"
		}
		if objectType, _, _ := strings.Cut(eventType, "."); objectType == "organization" {
			object["id"] = "1dbfc517-0bbf-4301-9ba8-555ca42b9737"
		}
		body, err := json.Marshal(map[string]any{"type": eventType, "timestamp": "2026-08-22T09:00:01Z", "data": object})
		if err != nil {
			t.Fatal(err)
		}
		if status := w.post(eventType, string(body)); status != 202 {
			t.Errorf("%s: answer %d", eventType, status)
		}
		bodies[eventType], properties[eventType] = object, data.child("properties")
	}
	for eventType := range webhooks {
		send(eventType, webhooks.child(eventType).child("post").child("requestBody").child("content").child("application/json").child("schema").resolve(document))
	}
	updated := webhooks.child("subscription.updated").child("post").child("requestBody").child("content").child("application/json").child("schema")
	send(polar.EventSubscriptionMigrated, updated.resolve(document)) // newer than the document, of the same object
	for _, eventType := range polar.EventTypes() {
		if _, ok := bodies[eventType]; !ok {
			t.Errorf("no event of type %s was sent", eventType)
		}
	}
	w.settle()
	w.noFailures()

	for eventType, object := range bodies {
		objectType, _, _ := strings.Cut(eventType, ".")
		row := one[map[string]any](w, fmt.Sprintf(`select to_jsonb(t) from polar.%q t where t.id = $1`, objectType), object["id"])
		columns := all[string](w, `select a.attname::text from pg_attribute a where a.attrelid = format('polar.%I', $1::text)::regclass and a.attgenerated = 's'`, objectType)
		for _, column := range columns {
			if _, known := properties[eventType][column]; known && row[column] == nil {
				t.Errorf("%s: column %s is null, though the document has %v", eventType, column, object[column])
			}
		}
		for _, column := range []string{"status", "customer_id"} {
			if _, known := properties[eventType][column]; known && !slices.Contains(columns, column) {
				t.Errorf("%s: the table has no column %s", eventType, column)
			}
		}
		if doc, _ := row["doc"].(map[string]any); doc["id"] != object["id"] {
			t.Errorf("%s: the document is not stored", eventType)
		}
	}
}
