package store_test

import (
	"testing"

	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

func TestConnectionsDoNotCompileTheirStatements(t *testing.T) {
	t.Parallel()
	s, err := store.Open(storetest.URL(t), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	var jit string
	if err := s.Pool().QueryRow(t.Context(), "show jit").Scan(&jit); err != nil || jit != "off" {
		t.Errorf("jit is %q (%v), want off", jit, err)
	}
}
