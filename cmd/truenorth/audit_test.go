package main

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/truenorth-dev/truenorth/internal/store"
)

func TestWhatPeopleDecideOnTheCommandLineStandsInTheAudit(t *testing.T) {
	t.Parallel()
	o, _ := newTour(t)
	o.exec("create table public.users (id text primary key, email text)")
	o.exec("insert into public.users values ('usr_ada', 'ada@example.com')")
	customer := o.customer("ada@corp.example")

	o.run(0, "keys", "create", "shop")
	o.run(1, "keys", "create", "shop") // there is one, so nothing is done
	o.run(0, "keys", "revoke", "shop")
	o.run(1, "keys", "revoke", "shop")
	o.run(0, "users", "map", "--table", "public.users")
	o.run(1, "users", "map", "--table", "public.nowhere")
	o.run(0, "link", customer, "usr_ada", "--reason", "she called", "--actor", "grace")
	o.run(0, "unlink", customer, "--reason", "she called again", "--actor", "grace")
	o.run(0, "forget", customer, "--reason", "erasure request 4711", "--actor", "grace")

	deeds, err := o.store.ListAudit(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var got [][]string
	for _, d := range deeds {
		if d.Door != store.DoorCommandLine {
			t.Errorf("%s came by the door %q", d.Action, d.Door)
		}
		got = append(got, []string{d.Actor, d.Action, d.Subject, d.Reason})
	}
	me := whoami()
	want := [][]string{ // newest first
		{"grace", "forget", "customer " + customer, "erasure request 4711"},
		{"grace", "unlink", "customer " + customer, "she called again"},
		{"grace", "link", "customer " + customer, "she called"},
		{me, "map_users", "table public.users", ""},
		{me, "revoke_key", "key shop", ""},
		{me, "create_key", "key shop", ""},
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Error(diff)
	}
	if len(deeds) > 3 {
		var columns map[string]string
		if err := json.Unmarshal(deeds[3].Detail, &columns); err != nil || columns["email"] != "email" {
			t.Errorf("the detail of users map is %s, %v", deeds[3].Detail, err)
		}
	}
}
