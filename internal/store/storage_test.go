package store_test

import (
	"slices"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

func TestDocumentsAreCompressedWithTheFastestThatTheServerHas(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	want := "" // the server's default
	if slices.Contains(column[string](t, s, "select unnest(enumvals) from pg_settings where name = 'default_toast_compression'"), "lz4") {
		want = "l"
	}
	found := column[string](t, s, `
		select a.attcompression::text from pg_attribute a
		 where a.attrelid = 'polar.event_log'::regclass and a.attname = 'body'
		    or a.attname = 'doc' and a.attnum > 0 and a.attrelid in (select oid from pg_class where relnamespace = 'polar'::regnamespace and relkind = 'r')`)
	if len(found) != 14 || slices.ContainsFunc(found, func(c string) bool { return c != want }) {
		t.Errorf("bodies and documents are compressed with %q, want %q of each of 14 columns", found, want)
	}
}
