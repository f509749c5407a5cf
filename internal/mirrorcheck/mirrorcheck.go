// Package mirrorcheck holds what truenorth has against what Polar has, once nothing is under way: objects field by field, and
// checkout requests against their sessions. Tests and the chaos runs judge by it; it knows neither the database nor the API.
package mirrorcheck

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// stamp is the key of a session's metadata that bears the id of the request it is for.
const stamp = "truenorth_request"

// Objects holds the mirror's documents of a type against Polar's, both by id. Each difference is a line for people.
func Objects(objectType string, atPolar, here map[string]json.RawMessage) (differences []string) {
	add := func(format string, args ...any) {
		differences = append(differences, fmt.Sprintf(format, args...))
	}
	for _, id := range slices.Sorted(maps.Keys(atPolar)) {
		row, mirrored := here[id]
		if !mirrored {
			add("%s %s: Polar has it, the mirror does not", objectType, id)
			continue
		}
		var want, got map[string]any
		if err := json.Unmarshal(atPolar[id], &want); err != nil {
			add("%s %s: Polar's document: %v", objectType, id, err)
			continue
		}
		if err := json.Unmarshal(row, &got); err != nil {
			add("%s %s: the mirror's document: %v", objectType, id, err)
			continue
		}
		for _, field := range slices.Sorted(maps.Keys(want)) {
			if !reflect.DeepEqual(got[field], want[field]) {
				add("%s %s: %s is %v here, %v at Polar", objectType, id, field, got[field], want[field])
			}
		}
		if len(got) != len(want) {
			add("%s %s has %d fields here, %d at Polar", objectType, id, len(got), len(want))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(here)) {
		if _, exists := atPolar[id]; !exists {
			add("%s %s: the mirror has it, Polar does not", objectType, id)
		}
	}
	return differences
}

// Session is what is needed of a checkout at Polar.
type Session struct {
	ID       string         `json:"id"`
	Status   string         `json:"status"`
	Metadata map[string]any `json:"metadata"`
	Created  time.Time      `json:"created_at"`
}

// ReadSessions reads Polar's documents of checkouts.
func ReadSessions(documents []json.RawMessage) ([]Session, error) {
	sessions := make([]Session, len(documents))
	for i, document := range documents {
		if err := json.Unmarshal(document, &sessions[i]); err != nil {
			return nil, fmt.Errorf("reading a checkout of Polar's: %w", err)
		}
	}
	return sessions, nil
}

// Request is the request that a session is for; false: truenorth did not create it.
func (k Session) Request() (id string, ours bool) {
	id, ours = k.Metadata[stamp].(string)
	return id, ours
}

// live tells whether a buyer may still pay here, or has.
func (k Session) live() bool {
	return slices.Contains([]string{"open", "confirmed", "succeeded"}, k.Status)
}

// Request is what is needed of a checkout request.
type Request struct {
	ID         string  `json:"id"`
	Key        *string `json:"key"`
	State      string  `json:"state"`
	CheckoutID *string `json:"checkout_id"`
	Error      *string `json:"error"`
}

// Doubles are the requests for which a buyer could pay twice.
func Doubles(sessions []Session) (doubles []string) {
	live := map[string][]string{}
	for _, k := range sessions {
		if request, ours := k.Request(); ours && k.live() {
			live[request] = append(live[request], k.ID+" "+k.Status)
		}
	}
	for _, request := range slices.Sorted(maps.Keys(live)) {
		if of := live[request]; len(of) > 1 {
			doubles = append(doubles, fmt.Sprintf("request %s has %d live sessions: %s", request, len(of), strings.Join(of, ", ")))
		}
	}
	return doubles
}

// Requests holds every request against its session: it has one and agrees with it, or it failed and says why.
func Requests(requests []Request, sessions []Session) (differences []string) {
	add := func(format string, args ...any) {
		differences = append(differences, fmt.Sprintf(format, args...))
	}
	of := map[string]Session{}
	for _, k := range sessions {
		if request, ours := k.Request(); ours {
			if known, twice := of[request]; !twice || k.Status == "succeeded" || known.Status != "succeeded" && known.Created.After(k.Created) {
				of[request] = k
			}
		}
	}
	for _, r := range requests {
		k, has := of[r.ID]
		switch {
		case r.State == "failed" && (r.Error == nil || *r.Error == ""):
			add("request %s failed and does not say why", r.ID)
		case !has && r.State == "failed":
		case !has:
			add("request %s is %s and has no session", r.ID, r.State)
		case r.State != k.Status || r.CheckoutID == nil || *r.CheckoutID != k.ID:
			checkout := "none"
			if r.CheckoutID != nil {
				checkout = *r.CheckoutID
			}
			add("request %s is %s with session %s, Polar has %s as %s", r.ID, r.State, checkout, k.ID, k.Status)
		}
	}
	return differences
}
