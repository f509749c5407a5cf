package main_test

import (
	"testing"

	"github.com/google/uuid"
)

func TestTheCommandLineTellsWhatIsNoLongerKept(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	contains(t, "status of an empty database", first(d.run(0, "status")), "oldest kept", "none")
	if status := parsed(t, first(d.run(0, "status", "--json"))); status["oldest_event_at"] != nil {
		t.Errorf("the oldest event of an empty database is from %v", status["oldest_event_at"])
	}
	ada := uuid.NewString()
	old := d.customer("customer.created", uuid.NewString(), `,"name":"Grace"`)
	d.customer("customer.created", ada, `,"name":"Ada"`)
	d.run(0, "replay", "--all")
	d.exec("update polar.event_log set body = null, received_at = '2026-03-04T12:00:00Z' where webhook_id = $1", old)

	stdout, _ := d.run(0, "replay", "--all", "--dry-run")
	contains(t, "the dry run", stdout, "1 event would be applied again", "1 more is older than EVENT_RETENTION")
	if n := parsed(t, first(d.run(0, "replay", "--all", "--dry-run", "--json")))["not_kept"]; n != 1.0 {
		t.Errorf("the dry run counts %v that are not kept, want 1", n)
	}
	contains(t, "replay", first(d.run(0, "replay", "--all")), "1 event applied again", "1 more is older than EVENT_RETENTION")
	if n := parsed(t, first(d.run(0, "replay", "--all", "--json")))["not_kept"]; n != 1.0 {
		t.Errorf("replay counts %v that are not kept, want 1", n)
	}
	contains(t, "verify", first(d.run(0, "replay", "--verify")), "rebuilt from 1 event", "1 more is older than EVENT_RETENTION")
	if n := parsed(t, first(d.run(0, "replay", "--verify", "--json")))["events_not_kept"]; n != 1.0 {
		t.Errorf("verify counts %v that are not kept, want 1", n)
	}
	contains(t, "status", first(d.run(0, "status")), "oldest kept", "2026-03-04T")
}
