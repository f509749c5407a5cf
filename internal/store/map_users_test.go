package store_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

func TestMapLocalUsersReadsTheProductsOwnTable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		setup   string
		mapping store.MapUsers
		want    string // the users as text
		indexed bool
	}{
		{
			name:    "text ids with a key",
			setup:   `create table users (id text primary key, email text); insert into users values ('Usr_1', 'a@example.com')`,
			mapping: store.MapUsers{Table: "users", ID: "id", Email: "email"},
			want:    "(Usr_1,a@example.com,,)", indexed: true,
		},
		{
			name:    "text ids without an index",
			setup:   `create table users (id text, email text); insert into users values ('usr_1', null)`,
			mapping: store.MapUsers{Table: "public.users", ID: "id", Email: "email"},
			want:    "(usr_1,,,)",
		},
		{
			name:    "ids that are second in their index",
			setup:   `create table users (tenant int, id varchar(40), primary key (tenant, id)); insert into users values (1, 'usr_1')`,
			mapping: store.MapUsers{Table: "users", ID: "id"},
			want:    "(usr_1,,,)",
		},
		{
			name:    "an index on some rows only",
			setup:   `create table users (id text); create index on users (id) where id <> ''; insert into users values ('usr_1')`,
			mapping: store.MapUsers{Table: "users", ID: "id"},
			want:    "(usr_1,,,)",
		},
		{
			name:    "integer ids, whose key does not serve text",
			setup:   `create table users (id bigint primary key); insert into users values (42)`,
			mapping: store.MapUsers{Table: "users", ID: "id"},
			want:    "(42,,,)",
		},
		{
			name:    "integer ids with an index on the text",
			setup:   `create table users (id integer primary key); create index on users ((id::text)); insert into users values (42)`,
			mapping: store.MapUsers{Table: "users", ID: "id"},
			want:    "(42,,,)", indexed: true,
		},
		{
			name:    "UUIDs, with all columns",
			setup:   `create table users (id uuid, mail varchar(80), joined timestamp, gone date); create index on users ((id::text)); set time zone 'utc'; insert into users values ('9d0a7c0e-7f7c-4b8e-9b59-0f6f5a6a2a11', 'a@example.com', '2026-01-02', '2026-03-04')`,
			mapping: store.MapUsers{Table: "users", ID: "id", Email: "mail", CreatedAt: "joined", DeletedAt: "gone"},
			want:    `(9d0a7c0e-7f7c-4b8e-9b59-0f6f5a6a2a11,a@example.com,"2026-01-02 00:00:00+00","2026-03-04 00:00:00+00")`, indexed: true,
		},
		{
			name:    "odd names",
			setup:   `create schema "My App"; create table "My App"."User's ""Table""" ("The Id" int, "E-Mail" text); create index on "My App"."User's ""Table""" (("The Id"::text)); insert into "My App"."User's ""Table""" values (7, 'a@example.com')`,
			mapping: store.MapUsers{Table: `My App.User's "Table"`, ID: "The Id", Email: "E-Mail"},
			want:    "(7,a@example.com,,)", indexed: true,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := storetest.New(t)
			if _, err := s.Pool().Exec(t.Context(), c.setup); err != nil {
				t.Fatal(err)
			}
			for range 2 { // safe twice
				indexed, err := s.MapLocalUsers(t.Context(), c.mapping, store.Word{Actor: "tester"})
				if err != nil {
					t.Fatal(err)
				}
				if indexed != c.indexed {
					t.Errorf("indexed is %t, want %t", indexed, c.indexed)
				}
			}
			got := column[string](t, s, `select (u.id, u.email, u.created_at at time zone 'utc' at time zone 'utc', u.deleted_at)::text from polar.local_user u`)
			if len(got) != 1 || got[0] != c.want {
				t.Errorf("users are %q, want %q", got, c.want)
			}
		})
	}
}

func TestMapLocalUsersFollowsItsLastMapping(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	if _, err := s.Pool().Exec(t.Context(), `create table a (id int); create table b (key uuid, mail text);
		insert into a values (1); insert into b values ('9d0a7c0e-7f7c-4b8e-9b59-0f6f5a6a2a11', 'b@example.com')`); err != nil {
		t.Fatal(err)
	}
	for _, m := range []store.MapUsers{{Table: "a", ID: "id"}, {Table: "b", ID: "key", Email: "mail"}} {
		if _, err := s.MapLocalUsers(t.Context(), m, store.Word{Actor: "tester"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := column[string](t, s, "select id || ' ' || email from polar.local_user"); len(got) != 1 || got[0] != "9d0a7c0e-7f7c-4b8e-9b59-0f6f5a6a2a11 b@example.com" {
		t.Errorf("users are %q", got)
	}
}

func TestMapLocalUsersNamesWhatIsMissingAndChangesNothing(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	if _, err := s.Pool().Exec(t.Context(), `create table users (id text, email text); insert into polar.local_user (id) values ('kept')`); err != nil {
		t.Fatal(err)
	}
	for want, m := range map[string]store.MapUsers{
		"table nowhere":                  {Table: "nowhere", ID: "id"},
		"table no_schema.users":          {Table: "no_schema.users", ID: "id"},
		"column key of table users":      {Table: "users", ID: "key"},
		"column mail of table users":     {Table: "users", ID: "id", Email: "mail"},
		"column ID of table users":       {Table: "users", ID: "ID"},
		"column gone_at of table users":  {Table: "users", ID: "id", DeletedAt: "gone_at"},
		"column since of table users":    {Table: "users", ID: "id", CreatedAt: "since"},
		"the id column has no name":      {Table: "users"},
		`table users"; drop table users`: {Table: `users"; drop table users`, ID: "id"},
	} {
		_, err := s.MapLocalUsers(t.Context(), m, store.Word{Actor: "tester"})
		if !errors.Is(err, store.ErrNoSuchColumn) || !strings.Contains(err.Error(), want) {
			t.Errorf("mapping %+v: %v, want ErrNoSuchColumn with %q", m, err, want)
		}
	}
	if got := column[string](t, s, "select id from polar.local_user"); len(got) != 1 || got[0] != "kept" {
		t.Errorf("users are %q, want those from before", got)
	}
}
