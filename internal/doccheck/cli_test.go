package doccheck_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/machinetest"
)

// way is how an example of docs/cli.md comes to run as it would for a person: what has to be so before, and what comes of it.
type way struct {
	before string // a script; where it prints "this=that", the line has that instead
	under  string // what the line is run by
	with   string // flags that keep it off the folders and ports of this machine
	keeps  string // what it prints before it goes on for ever
	shell  string // the shell that it is for, where that is not bash
	code   int
}

// At the fake Polar, so that what is known of it here came by its webhooks.
const (
	makesCustomers = `
known() { until [ -n "$(psql "$DATABASE_URL" -At -c "select 1 from polar.customer where $1")" ]; do :; done; }
customer() { # EMAIL [EXTERNAL_ID]
	curl -sS --fail -o /dev/null -H "Authorization: Bearer $POLAR_ACCESS_TOKEN" -H 'Content-Type: application/json' "$POLAR_API_URL/customers/" \
		-d "{\"email\": \"$1\"${2:+, \"external_id\": \"$2\"}}"
	known "email = '$1'"
}
`
	// In the mirror alone, where nothing happens to it that would settle the conflict.
	makesConflict17 = `
psql -q "$DATABASE_URL" <<'SQL'
delete from polar.link_conflict where id = 17;
with c as (insert into polar.customer (id, version_from, doc) select id, 'event', jsonb_build_object('id', id, 'email', id || '@example.com', 'created_at', now())
    from gen_random_uuid() id returning id)
insert into polar.link_conflict (id, customer_id, local_user_id, kind, detail) overriding system value
select 17, id, 'usr_grace', 'email_match', 'the customer is older than the checkout' from c;
SQL
`
	// The secret that was printed last goes to ingest, beside the one that is in use.
	givesIngestTheSecret = `
{ grep -o 'whsec_.*' "$HOME/printed"; echo ` + pageSecret + `; } > /etc/truenorth/polar_webhook_secrets
systemctl restart truenorth-ingest
`
	// Nothing is set, and nothing listens.
	onABareMachine = `env -u DATABASE_URL -u POLAR_ACCESS_TOKEN -u POLAR_API_URL -u POLAR_WEBHOOK_SECRETS -u INGEST_PUBLIC_URL INGEST_ADDR=127.0.0.1:8090 WORKER_ADDR=127.0.0.1:8091 `
	writesEvent    = `
export POLAR_WEBHOOK_SECRETS=` + pageSecret + `
echo '{"type": "customer.updated", "timestamp": "2026-11-25T09:00:00Z", "data": {"id": "0198c0de-0000-4000-8000-0000000000c7",
	"email": "kept@example.com", "created_at": "2026-11-25T09:00:00Z"}}' | tr -d '\n' > event.json
`
)

// ways are those of the lines that need one; the others run as they stand.
var ways = map[string]way{
	"truenorth dev":           {under: onABareMachine, with: ` --data "$HOME/dev" --fake-addr 127.0.0.1:8092`, keeps: "Ctrl-C ends everything"},
	"truenorth dev --verbose": {under: onABareMachine, with: ` --data "$HOME/dev" --fake-addr 127.0.0.1:8092`, keeps: "Ctrl-C ends everything"},

	"truenorth status --exit-code":                                                      {before: makesConflict17, code: exitFault},
	"truenorth reconcile --dry-run":                                                     {code: exitFault}, // the page's users and what dev made are not at this Polar
	"truenorth conflicts show 17":                                                       {before: makesConflict17},
	"truenorth conflicts list --exit-code":                                              {before: makesConflict17, code: exitFault},
	"truenorth conflicts resolve 17 --link --reason 'she sent the receipt'":             {before: makesConflict17},
	"truenorth conflicts resolve 17 --dismiss --reason 'somebody typed her address'":    {before: makesConflict17},
	"truenorth link ada@example.com usr_ada --reason 'she wrote from this address'":     {before: makesCustomers + "customer ada@example.com"},
	"truenorth link external:old_id usr_ada --also --reason 'two accounts, one person'": {before: makesCustomers + "customer old@example.com old_id"},

	"truenorth users map --table public.users --id id --email email": {before: `
psql -q "$DATABASE_URL" <<'SQL'
create table public.users (id text primary key, email text, deleted_at timestamptz);
insert into public.users values ('usr_ada', 'ada@example.com'), ('usr_grace', 'grace@example.com');
SQL
`},
	"truenorth checkout create --params - < checkout.json": {before: `echo '{"products": ["5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01"]}' > checkout.json`},
	"truenorth checkout get 7f0f4e0e-4c0d-4a53-9d5e-5f7f5d1c2a11": {before: `
echo 7f0f4e0e-4c0d-4a53-9d5e-5f7f5d1c2a11=$(psql "$DATABASE_URL" -At -c "select id from polar.checkout_request limit 1")`},

	"truenorth endpoint create --url https://shop.example/webhooks/polar": {before: `
for id in $(curl -sS --fail -H "Authorization: Bearer $POLAR_ACCESS_TOKEN" "$POLAR_API_URL/webhooks/endpoints" | jq -r '.items[].id'); do
	curl -sS --fail -X DELETE -H "Authorization: Bearer $POLAR_ACCESS_TOKEN" "$POLAR_API_URL/webhooks/endpoints/$id"
done`},
	"truenorth endpoint rotate":          {before: givesIngestTheSecret},
	"truenorth endpoint rotate --finish": {before: givesIngestTheSecret},
	"truenorth endpoint redeliver 0b1c9d4e-6f1a-4c58-9d59-4d8e1a6b2c3d": {before: makesCustomers + `
customer redelivered@example.com
echo 0b1c9d4e-6f1a-4c58-9d59-4d8e1a6b2c3d=$(psql "$DATABASE_URL" -At -c "select webhook_id from polar.event where body like '%redelivered@example.com%' limit 1")`},

	"truenorth forget 0f6f3b0c-6d0e-4f0b-9f6e-2f1f3c1d2b3a --reason 'erasure request 4711'": {before: `
echo 0f6f3b0c-6d0e-4f0b-9f6e-2f1f3c1d2b3a=$(psql "$DATABASE_URL" -At -c "select id from polar.customer where email = 'old@example.com'")`},
	"truenorth forget external:usr_ada --reason 'account deleted'": {before: makesCustomers + `known "external_id = 'usr_ada'"`},

	"truenorth fake-polar": {with: ` --addr 127.0.0.1:8092`, keeps: "/v1"},
	"truenorth fake-polar --webhook-url http://127.0.0.1:8080/webhooks/polar --webhook-secret whsec_c2VjcmV0": {with: ` --addr 127.0.0.1:8092`, keeps: "/v1"},

	"truenorth webhook sign event.json":                                           {before: writesEvent},
	"truenorth webhook sign - < event.json":                                       {before: writesEvent},
	"truenorth webhook send event.json --url https://shop.example/webhooks/polar": {before: writesEvent},

	"source <(truenorth completion zsh)": {shell: "zsh"},
	"truenorth completion fish | source": {shell: "fish"},
}

func TestEveryExampleOfTheCommandsRuns(t *testing.T) {
	t.Parallel()
	p := readPage(t, "docs/cli.md")
	w := newWorld(t, p.name)
	w.write("state", "cd "+w.work+"\n")
	for _, address := range []string{"127.0.0.1:8090", "127.0.0.1:8091", "127.0.0.1:8092"} {
		w.words = append(w.words, address, machinetest.Address(t))
	}
	unused := maps.Clone(ways)
	ran := 0
	for _, b := range p.blocks {
		if b.language != "sh" {
			continue
		}
		for line := range strings.Lines(b.text) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), "  # ")
			t.Run(line, func(t *testing.T) {
				(&shell{world: w, t: t}).runExample(block{page: p.name, line: b.line, text: line}, ways[line])
			})
			delete(unused, line)
			ran++
		}
	}
	if len(unused) > 0 {
		t.Errorf("%s has no such lines: %q", p.name, slices.Sorted(maps.Keys(unused)))
	}
	const least = 40
	if ran < least {
		t.Errorf("%s had %d examples at least, and %d were found, so this test does not see them", p.name, least, ran)
	}
}

// runExample runs one line, and keeps what it printed for those that follow.
func (s *shell) runExample(b block, w way) {
	s.t.Helper()
	if w.before != "" {
		before := b
		before.text = w.before
		for printed := range strings.Lines(s.run(before)) {
			if this, that, ok := strings.Cut(strings.TrimSpace(printed), "="); ok {
				b.text = strings.ReplaceAll(b.text, this, that)
			}
		}
	}
	b.text = w.under + b.text + w.with
	if w.code != 0 {
		b.note = fmt.Sprintf("exit code: %d", w.code)
	}
	switch w.shell {
	case "zsh":
		machinetest.Program(s.t, "zsh", "zsh")
		b.text = "zsh -f -c 'autoload -U compinit && compinit -u -D && " + b.text + "'"
	case "fish":
		machinetest.Program(s.t, "fish", "fish")
		b.text = "fish --no-config -c '" + b.text + "'"
	}
	if w.keeps != "" {
		if err := s.keep(b, s.command(b), w.keeps).stop(); err != nil {
			s.t.Error(err)
		}
		return
	}
	if printed := s.run(b); printed != "" {
		s.world.write("home/printed", printed)
	}
}
