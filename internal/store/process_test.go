package store_test

import (
	"testing"

	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

func TestOnlyJobsThatReadFromPolarAreDropped(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	_, err := s.Pool().Exec(t.Context(), `
		insert into polar.river_job (kind, args, queue, max_attempts, state)
		select k, '{}', 'default', 1, 'available' from unnest(array['reconcile', 'refresh_object', 'fill_gaps', 'watch_endpoint', 'apply_events', 'create_checkout', 'write_external_id', 'link_customers', 'prune_events']) k`)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DropReads(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left string
	if err := s.Pool().QueryRow(t.Context(), "select string_agg(kind, ' ' order by kind) from polar.river_job").Scan(&left); err != nil {
		t.Fatal(err)
	}
	if want := "apply_events create_checkout link_customers prune_events write_external_id"; left != want {
		t.Errorf("left are the jobs %s, want %s", left, want)
	}
}
