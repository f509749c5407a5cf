package store_test

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// documents holds one whole document of each of Polar's objects, which the lines of a seed change field by field.
const documents = "testdata/documents.json"

var (
	seedField = regexp.MustCompile(`(\w+)=('[^']*'|\S+)`)
	seedTime  = regexp.MustCompile(`^[+-]\d+[mhd]$`)
)

// seed is a database with data in it, in which objects go by names and times by their distance from its beginning.
type seed struct {
	*store.Store

	t      *testing.T
	began  time.Time
	docs   map[string]map[string]any
	naming sync.Mutex
	names  map[uuid.UUID]string
}

func newSeed(t *testing.T) *seed {
	t.Helper()
	text, err := os.ReadFile(documents)
	if err != nil {
		t.Fatal(err)
	}
	d := &seed{Store: storetest.New(t), t: t, began: time.Now().UTC().Truncate(time.Second), names: map[uuid.UUID]string{}}
	if err := json.Unmarshal(text, &d.docs); err != nil {
		t.Fatalf("reading %s: %v", documents, err)
	}
	return d
}

// id is the id of the object of a name.
func (d *seed) id(name string) uuid.UUID {
	id := uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://fjord.example/"+name))
	d.naming.Lock()
	defer d.naming.Unlock()
	d.names[id] = name
	return id
}

// sow writes lines of the form: type name field=value..., where a field that ends in _id holds the name of an object,
// +3d and -2h are times, and the fields that a line leaves out are those of testdata/documents.json. Of the lines that
// are no objects of Polar: `user id`, `request name user=id`, `link customer user=id`, `exec statement`.
func (d *seed) sow(lines string) {
	d.t.Helper()
	for line := range strings.Lines(lines) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		kind, name, fields := d.parse(line)
		switch kind {
		case "user":
			d.exec(line, "insert into polar.local_user (id, email, deleted_at) values ($1, $1 || '@example.com', $2)", name, fields["deleted_at"])
		case "link":
			d.exec(line, "insert into polar.customer_link (customer_id, local_user_id, basis, linked_at) values ($1, $2, coalesce($3, 'external_id'), coalesce($4::timestamptz, now()))",
				d.id(name), fields["user"], fields["basis"], fields["linked_at"])
		case "request":
			d.request(line, name, fields)
		default:
			d.mirror(line, kind, name, fields)
		}
	}
}

// parse takes a line apart.
func (d *seed) parse(line string) (kind, name string, fields map[string]any) {
	kind, rest, _ := strings.Cut(line, " ")
	name, rest, _ = strings.Cut(rest, " ")
	fields = map[string]any{}
	for _, m := range seedField.FindAllStringSubmatch(rest, -1) {
		fields[m[1]] = d.value(m[1], strings.Trim(m[2], "'"))
	}
	return kind, name, fields
}

// request writes a checkout request, whose session is the checkout of the same name.
func (d *seed) request(line, name string, fields map[string]any) {
	d.t.Helper()
	params := map[string]any{"products": []string{"5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01"}, "external_customer_id": fields["user"]}
	text, err := json.Marshal(params)
	if err != nil {
		d.t.Fatal(err)
	}
	state, _ := fields["state"].(string)
	if state == "" {
		state = "succeeded"
	}
	var session, url any
	if state == "queued" || state == "creating" || state == "failed" {
		session, url = nil, nil
	} else {
		session, url = d.id(name), "https://polar.example/checkout/"+name
	}
	d.exec(line, `insert into polar.checkout_request (id, params, state, checkout_id, url, error, expires_at, created_at, updated_at)
		values ($1, $2, $3, $4, $5, $6, $7::timestamptz, coalesce($8::timestamptz, now()), coalesce($9::timestamptz, $8::timestamptz, now()))`,
		d.id("request "+name), text, state, session, url, fields["error"], fields["expires_at"], fields["created_at"], fields["updated_at"])
}

// mirror writes an object as an event would.
func (d *seed) mirror(line, objectType, name string, fields map[string]any) {
	d.t.Helper()
	object := d.object(line, objectType, name, fields)
	err := d.InTx(d.t.Context(), func(tx *store.Tx) error {
		_, err := tx.MirrorObjects(d.t.Context(), objectType, store.FromEvent, []store.Object{object}, false)
		return err
	})
	if err != nil {
		d.t.Fatalf("%s: %v", line, err)
	}
}

// object is the newest version of an object that a line tells of. deleted=true makes a tombstone of it.
func (d *seed) object(line, objectType, name string, fields map[string]any) store.Object {
	d.t.Helper()
	base, ok := d.docs[objectType]
	if !ok {
		d.t.Fatalf("%s: %s holds no %s", line, documents, objectType)
	}
	doc := maps.Clone(base)
	for key, value := range fields {
		if _, ok := base[key]; !ok && key != "deleted" {
			d.t.Fatalf("%s: a %s has no field %s", line, objectType, key)
		}
		doc[key] = value
	}
	deleted := doc["deleted"] == true
	delete(doc, "deleted")
	id := d.id(name)
	doc["id"] = id
	text, err := json.Marshal(doc)
	if err != nil {
		d.t.Fatal(err)
	}
	return store.Object{ID: id, Doc: text, Deleted: deleted, VersionAt: time.Now(), WebhookID: uuid.NewString()}
}

// value reads what a line says of a field.
func (d *seed) value(field, text string) any {
	switch {
	case text == "null":
		return nil
	case text == "true" || text == "false":
		return text == "true"
	case seedTime.MatchString(text):
		return d.began.Add(d.distance(text)).Format(time.RFC3339)
	case field == "user" || field == "external_id" || field == "external_customer_id":
		return text
	case strings.HasSuffix(field, "_id"):
		return d.id(text)
	}
	if n, err := strconv.Atoi(text); err == nil {
		return n
	}
	return text
}

func (d *seed) distance(text string) time.Duration {
	d.t.Helper()
	n, err := strconv.Atoi(text[:len(text)-1])
	if err != nil {
		d.t.Fatalf("%s: %v", text, err)
	}
	return time.Duration(n) * map[byte]time.Duration{'m': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}[text[len(text)-1]]
}

func (d *seed) exec(line, sql string, args ...any) {
	d.t.Helper()
	if _, err := d.Pool().Exec(d.t.Context(), sql, args...); err != nil {
		d.t.Fatalf("%s: %v", line, err)
	}
}
