package storetest

import (
	_ "embed"
	"encoding/json"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/store"
)

// documents holds one whole document of each of Polar's objects, which the lines of a seed change field by field.
//
//go:embed documents.json
var documents []byte

var (
	seedField = regexp.MustCompile(`(\w+)=('[^']*'|\S+)`)
	seedTime  = regexp.MustCompile(`^[+-]\d+[mhd]$`)
)

// Seed is a database with data in it, in which objects go by names and times by their distance from its beginning.
type Seed struct {
	*store.Store

	// Began is the moment that the times of a seed are told from.
	Began time.Time

	tb     testing.TB
	docs   map[string]map[string]any
	naming sync.Mutex
	names  map[uuid.UUID]string
}

// NewSeed is an empty one, on a new migrated database.
func NewSeed(tb testing.TB) *Seed {
	tb.Helper()
	d := &Seed{Store: New(tb), Began: time.Now().UTC().Truncate(time.Second), tb: tb, names: map[uuid.UUID]string{}}
	if err := json.Unmarshal(documents, &d.docs); err != nil {
		tb.Fatalf("reading documents.json: %v", err)
	}
	return d
}

// Name is the name of the object of an id; empty where nothing told of it.
func (d *Seed) Name(id uuid.UUID) string {
	d.naming.Lock()
	defer d.naming.Unlock()
	return d.names[id]
}

// Names are the names of all objects that something told of.
func (d *Seed) Names() map[uuid.UUID]string {
	d.naming.Lock()
	defer d.naming.Unlock()
	return maps.Clone(d.names)
}

// ID is the id of the object of a name.
func (d *Seed) ID(name string) uuid.UUID {
	id := uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://fjord.example/"+name))
	d.naming.Lock()
	defer d.naming.Unlock()
	d.names[id] = name
	return id
}

// Sow writes lines of the form: type name field=value..., where a field that ends in _id holds the name of an object,
// +3d and -2h are times, and the fields that a line leaves out are those of documents.json. Of the lines that
// are no objects of Polar: `user id`, `request name user=id`, `link customer user=id`, `exec statement`.
func (d *Seed) Sow(lines string) {
	d.tb.Helper()
	for line := range strings.Lines(lines) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		kind, name, fields := d.parse(line)
		switch kind {
		case "user":
			d.Exec(line, "insert into polar.local_user (id, email, deleted_at) values ($1, $1 || '@example.com', $2)", name, fields["deleted_at"])
		case "link":
			d.Exec(line, "insert into polar.customer_link (customer_id, local_user_id, basis, linked_at) values ($1, $2, coalesce($3, 'external_id'), coalesce($4::timestamptz, now()))",
				d.ID(name), fields["user"], fields["basis"], fields["linked_at"])
		case "request":
			d.request(line, name, fields)
		default:
			d.mirror(line, kind, name, fields)
		}
	}
}

// parse takes a line apart.
func (d *Seed) parse(line string) (kind, name string, fields map[string]any) {
	kind, rest, _ := strings.Cut(line, " ")
	name, rest, _ = strings.Cut(rest, " ")
	fields = map[string]any{}
	for _, m := range seedField.FindAllStringSubmatch(rest, -1) {
		fields[m[1]] = d.value(m[1], strings.Trim(m[2], "'"))
	}
	return kind, name, fields
}

// request writes a checkout request, whose session is the checkout of the same name.
func (d *Seed) request(line, name string, fields map[string]any) {
	d.tb.Helper()
	params := map[string]any{"products": []string{"5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01"}, "external_customer_id": fields["user"]}
	text, err := json.Marshal(params)
	if err != nil {
		d.tb.Fatal(err)
	}
	state, _ := fields["state"].(string)
	if state == "" {
		state = "succeeded"
	}
	var session, url any
	if state == "queued" || state == "creating" || state == "failed" {
		session, url = nil, nil
	} else {
		session, url = d.ID(name), "https://polar.example/checkout/"+name
	}
	d.Exec(line, `insert into polar.checkout_request (id, params, state, checkout_id, url, error, expires_at, created_at, updated_at)
		values ($1, $2, $3, $4, $5, $6, $7::timestamptz, coalesce($8::timestamptz, now()), coalesce($9::timestamptz, $8::timestamptz, now()))`,
		d.ID("request "+name), text, state, session, url, fields["error"], fields["expires_at"], fields["created_at"], fields["updated_at"])
}

// mirror writes an object as an event would.
func (d *Seed) mirror(line, objectType, name string, fields map[string]any) {
	d.tb.Helper()
	object := d.object(line, objectType, name, fields)
	err := d.InTx(d.tb.Context(), func(tx *store.Tx) error {
		_, err := tx.MirrorObjects(d.tb.Context(), objectType, store.FromEvent, []store.Object{object}, false)
		return err
	})
	if err != nil {
		d.tb.Fatalf("%s: %v", line, err)
	}
}

// Object is what a line tells of one of Polar's objects, unwritten.
func (d *Seed) Object(line string) (objectType string, object store.Object) {
	d.tb.Helper()
	objectType, name, fields := d.parse(line)
	return objectType, d.object(line, objectType, name, fields)
}

// object is the newest version of an object that a line tells of. deleted=true makes a tombstone of it.
func (d *Seed) object(line, objectType, name string, fields map[string]any) store.Object {
	d.tb.Helper()
	base, ok := d.docs[objectType]
	if !ok {
		d.tb.Fatalf("%s: documents.json holds no %s", line, objectType)
	}
	doc := maps.Clone(base)
	for key, value := range fields {
		if _, ok := base[key]; !ok && key != "deleted" {
			d.tb.Fatalf("%s: a %s has no field %s", line, objectType, key)
		}
		doc[key] = value
	}
	deleted := doc["deleted"] == true
	delete(doc, "deleted")
	id := d.ID(name)
	doc["id"] = id
	text, err := json.Marshal(doc)
	if err != nil {
		d.tb.Fatal(err)
	}
	return store.Object{ID: id, Doc: text, Deleted: deleted, VersionAt: time.Now(), WebhookID: uuid.NewString()}
}

// value reads what a line says of a field.
func (d *Seed) value(field, text string) any {
	switch {
	case text == "null":
		return nil
	case text == "true" || text == "false":
		return text == "true"
	case seedTime.MatchString(text):
		return d.Began.Add(d.distance(text)).Format(time.RFC3339)
	case field == "user" || field == "external_id" || field == "external_customer_id":
		return text
	case strings.HasSuffix(field, "_id"):
		return d.ID(text)
	}
	if n, err := strconv.Atoi(text); err == nil {
		return n
	}
	return text
}

func (d *Seed) distance(text string) time.Duration {
	d.tb.Helper()
	n, err := strconv.Atoi(text[:len(text)-1])
	if err != nil {
		d.tb.Fatalf("%s: %v", text, err)
	}
	return time.Duration(n) * map[byte]time.Duration{'m': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}[text[len(text)-1]]
}

// Exec runs a statement; line says in a failure what it was for.
func (d *Seed) Exec(line, sql string, args ...any) {
	d.tb.Helper()
	if _, err := d.Pool().Exec(d.tb.Context(), sql, args...); err != nil {
		d.tb.Fatalf("%s: %v", line, err)
	}
}
