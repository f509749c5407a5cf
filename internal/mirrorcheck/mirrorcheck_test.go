package mirrorcheck_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/mirrorcheck"
)

type documents = map[string]json.RawMessage

func TestEveryDifferenceOfObjectsIsTold(t *testing.T) {
	t.Parallel()

	whole := documents{"a": json.RawMessage(`{"id":"a","name":"Ada","list":[1,2]}`)}
	for name, c := range map[string]struct {
		atPolar, here documents
		want          string // a part of the only difference; empty: none
	}{
		"equal":          {whole, documents{"a": json.RawMessage(`{"list":[1, 2], "name":"Ada", "id":"a"}`)}, ""},
		"nothing":        {documents{}, documents{}, ""},
		"missing here":   {whole, documents{}, "customer a: Polar has it, the mirror does not"},
		"missing there":  {documents{}, whole, "customer a: the mirror has it, Polar does not"},
		"another value":  {whole, documents{"a": json.RawMessage(`{"id":"a","name":"Eve","list":[1,2]}`)}, "name is Eve here, Ada at Polar"},
		"another list":   {whole, documents{"a": json.RawMessage(`{"id":"a","name":"Ada","list":[2,1]}`)}, "list is"},
		"a field more":   {whole, documents{"a": json.RawMessage(`{"id":"a","name":"Ada","list":[1,2],"x":null}`)}, "has 4 fields here, 3 at Polar"},
		"no JSON":        {whole, documents{"a": json.RawMessage(`{`)}, "the mirror's document"},
		"no JSON either": {documents{"a": json.RawMessage(`{`)}, whole, "Polar's document"},
	} {
		differences := mirrorcheck.Objects("customer", c.atPolar, c.here)
		if c.want == "" && len(differences) > 0 || c.want != "" && (len(differences) != 1 || !strings.Contains(differences[0], c.want)) {
			t.Errorf("%s: %q, want one with %q", name, differences, c.want)
		}
	}
}

func session(id, request, status string, created time.Time) mirrorcheck.Session {
	return mirrorcheck.Session{ID: id, Status: status, Created: created, Metadata: map[string]any{"truenorth_request": request}}
}

func TestTwoLiveSessionsOfARequestAreADouble(t *testing.T) {
	t.Parallel()

	now := time.Now()
	alien := mirrorcheck.Session{ID: "k9", Status: "open"}
	calm := []mirrorcheck.Session{
		session("k1", "r1", "open", now), session("k2", "r1", "expired", now), session("k3", "r2", "succeeded", now), alien, alien,
	}
	if doubles := mirrorcheck.Doubles(calm); len(doubles) > 0 {
		t.Errorf("doubles are %q, want none", doubles)
	}
	doubles := mirrorcheck.Doubles(append(calm, session("k4", "r2", "confirmed", now)))
	if len(doubles) != 1 || !strings.Contains(doubles[0], "request r2 has 2 live sessions") {
		t.Errorf("doubles are %q, want r2", doubles)
	}
}

func TestARequestAgreesWithItsSessionOrSaysWhyItFailed(t *testing.T) {
	t.Parallel()

	now := time.Now()
	k1, why, empty := "k1", "422: no such product", ""
	open := []mirrorcheck.Session{session("k1", "r1", "open", now)}
	for name, c := range map[string]struct {
		request  mirrorcheck.Request
		sessions []mirrorcheck.Session
		want     string // a part of the only difference; empty: none
	}{
		"open":                {mirrorcheck.Request{ID: "r1", State: "open", CheckoutID: &k1}, open, ""},
		"failed":              {mirrorcheck.Request{ID: "r1", State: "failed", Error: &why}, nil, ""},
		"failed in silence":   {mirrorcheck.Request{ID: "r1", State: "failed", Error: &empty}, nil, "does not say why"},
		"no session":          {mirrorcheck.Request{ID: "r1", State: "creating"}, nil, "is creating and has no session"},
		"another state":       {mirrorcheck.Request{ID: "r1", State: "expired", CheckoutID: &k1}, open, "Polar has k1 as open"},
		"session not known":   {mirrorcheck.Request{ID: "r1", State: "open"}, open, "with session none"},
		"the oldest counts":   {mirrorcheck.Request{ID: "r1", State: "open", CheckoutID: &k1}, append(open, session("k0", "r1", "expired", now.Add(time.Hour))), ""},
		"the paid one counts": {mirrorcheck.Request{ID: "r1", State: "succeeded", CheckoutID: &k1}, []mirrorcheck.Session{session("k1", "r1", "succeeded", now), session("k0", "r1", "open", now.Add(-time.Hour))}, ""},
	} {
		differences := mirrorcheck.Requests([]mirrorcheck.Request{c.request}, c.sessions)
		if c.want == "" && len(differences) > 0 || c.want != "" && (len(differences) != 1 || !strings.Contains(differences[0], c.want)) {
			t.Errorf("%s: %q, want one with %q", name, differences, c.want)
		}
	}
}

func TestSessionsAreReadFromPolarsDocuments(t *testing.T) {
	t.Parallel()

	sessions, err := mirrorcheck.ReadSessions([]json.RawMessage{
		[]byte(`{"id": "k1", "status": "open", "created_at": "2026-09-01T00:00:00Z", "metadata": {"truenorth_request": "r1", "other": 1}}`),
		[]byte(`{"id": "k2", "status": "expired", "created_at": "2026-09-01T00:00:00Z", "metadata": {}}`),
	})
	if err != nil || len(sessions) != 2 {
		t.Fatalf("read %v and %v", sessions, err)
	}
	if request, ours := sessions[0].Request(); request != "r1" || !ours {
		t.Errorf("the first is for %q, %t, want r1", request, ours)
	}
	if _, ours := sessions[1].Request(); ours {
		t.Error("the second is ours, and bears no stamp")
	}
	if _, err := mirrorcheck.ReadSessions([]json.RawMessage{[]byte(`[]`)}); err == nil {
		t.Error("a list is no checkout, and was read")
	}
}
