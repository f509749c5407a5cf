package polarfake

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
)

// The forms in which an endpoint may want its events.
const (
	formatRaw     = "raw"
	formatDiscord = "discord"
	formatSlack   = "slack"
)

var formats = []string{formatRaw, formatDiscord, formatSlack}

// defaultEventVersion is the version of payloads that an endpoint gets unless it asks for another.
const defaultEventVersion = "2026-10"

// Endpoint is where events are to be sent.
type Endpoint struct {
	URL string
	// Secret signs the events; "" generates one of the standard scheme.
	Secret string
	// Scheme overrides what the secret's form speaks for.
	Scheme SignatureScheme
	// Events are the types to send; none means all.
	Events []string
	// Format is "raw", "discord" or "slack"; "" means raw.
	Format string
	// APIVersion is the version of the payloads; "" means 2026-10.
	APIVersion string
}

// endpoint is a webhook endpoint; its exported fields are its document.
type endpoint struct {
	CreatedAt      timestamp  `json:"created_at"`
	ModifiedAt     *timestamp `json:"modified_at"`
	ID             string     `json:"id"`
	URL            string     `json:"url"`
	Name           *string    `json:"name"`
	APIVersion     string     `json:"api_version"`
	Format         string     `json:"format"`
	Secret         string     `json:"secret"`
	OrganizationID string     `json:"organization_id"`
	Events         []string   `json:"events"`
	Enabled        bool       `json:"enabled"`
	UsesStandard   bool       `json:"uses_standard_webhook_signature"`

	sequence int64

	isDeleted bool
	events    []*event // all that were recorded, in order
	waiting   []*event // those whose first delivery has not begun, in order
	sending   []*event // those whose first delivery is under way
	reordered []*event // those that a fault holds back until a later one was sent
}

func (e *endpoint) scheme() SignatureScheme {
	if e.UsesStandard {
		return SchemeStandard
	}
	return SchemeLegacy
}

func (e *endpoint) standing() (id string, created rank) {
	return e.ID, rank{at: e.CreatedAt.Time, sequence: e.sequence}
}

func (f *Fake) generateSecret() string {
	return secretPrefix + base64.StdEncoding.EncodeToString(randomBytes(f.random.objects, secretKeyBytes))
}

// AddEndpoint registers an endpoint and returns its id.
func (f *Fake) AddEndpoint(spec Endpoint) string {
	f.mu.Lock()
	defer f.mu.Unlock()

	added := &endpoint{
		CreatedAt: f.now(), ID: f.newID(), URL: spec.URL, APIVersion: spec.APIVersion, Format: spec.Format, Secret: spec.Secret,
		OrganizationID: OrganizationID, Events: spec.Events, Enabled: true, sequence: f.next(),
	}
	if added.APIVersion == "" {
		added.APIVersion = defaultEventVersion
	}
	if added.Format == "" {
		added.Format = formatRaw
	}
	if added.Secret == "" {
		added.Secret = f.generateSecret()
	}
	if len(added.Events) == 0 {
		added.Events = EventTypes
	}
	scheme := spec.Scheme
	if scheme == SchemeByForm {
		scheme = SchemeOf(added.Secret)
	}
	added.UsesStandard = scheme == SchemeStandard
	f.endpoints.add(added)
	return added.ID
}

// Endpoints returns the documents of all webhook endpoints, with their secrets, oldest first.
func (f *Fake) Endpoints() []json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()

	return f.endpoints.documents()
}

func (f *Fake) listEndpoints(r *request) (any, error) {
	query := r.query()
	organizations, paging := query.identifiers("organization_id"), query.paging()
	if err := query.err(); err != nil {
		return nil, err
	}
	return listing[*endpoint]{
		all: f.endpoints.all, render: f.endpoints.render,
		allow: func(e *endpoint) bool { return organizations.allow(e.OrganizationID) },
	}.page(paging), nil
}

// createEndpoint takes http and local addresses too, which Polar refuses: they are what the fake is for.
func (f *Fake) createEndpoint(r *request) (any, error) {
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	body.require("url")
	body.require("format")
	body.require("events")
	url, format, name := body.webURL("url"), body.choice("format", formats), body.text("name", 0, 0)
	events, version := readEventTypes(body), body.choice("api_version", apiVersions)
	secret := body.text("secret", 32, 0) // deprecated, still accepted
	organization := body.identifier("organization_id")
	if err := body.err(); err != nil {
		return nil, err
	}
	if organization != nil {
		body.failValue(body.at("organization_id"), "Setting organization_id is disallowed when using an organization token.", *organization)
	}
	if err := body.ruleErr(); err != nil {
		return nil, err
	}

	created := &endpoint{
		CreatedAt: f.now(), ID: f.newID(), URL: deref(url), Name: name, APIVersion: defaultEventVersion, Format: deref(format),
		OrganizationID: OrganizationID, Events: events, Enabled: true, sequence: f.next(),
	}
	if version != nil {
		created.APIVersion = *version
	}
	// A secret that the merchant chose always signs the legacy way, whatever its form.
	if secret != nil {
		created.Secret = *secret
	} else {
		created.Secret, created.UsesStandard = f.generateSecret(), true
	}
	f.endpoints.add(created)
	return created, nil
}

func readEventTypes(body fields) []string {
	list, ok := body.value("events")
	if !ok {
		return []string{}
	}
	given, ok := body.checkList(body.at("events"), list, 0)
	if !ok {
		return nil
	}
	types := []string{}
	for i, element := range given {
		eventType, ok := element.(string)
		if !ok || !slices.Contains(EventTypes, eventType) {
			body.failChoice(body.at("events", i), element, EventTypes)
			continue
		}
		types = append(types, eventType)
	}
	return types
}

func (f *Fake) updateEndpoint(r *request) (any, error) {
	e, err := f.endpoints.named(r)
	if err != nil {
		return nil, err
	}
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	url, format, name := body.webURL("url"), body.choice("format", formats), body.text("name", 0, 0)
	events, version := readEventTypes(body), body.choice("api_version", apiVersions)
	enabled, secret := body.optionalBoolean("enabled"), body.text("secret", 32, 0)
	if err := body.err(); err != nil {
		return nil, err
	}
	e.URL = *firstOf(url, &e.URL)
	e.Format = *firstOf(format, &e.Format)
	e.APIVersion = *firstOf(version, &e.APIVersion)
	e.Enabled = *firstOf(enabled, &e.Enabled)
	if body.has("name") {
		e.Name = name
	}
	if _, ok := body.value("events"); ok {
		e.Events = events
	}
	if secret != nil {
		e.Secret, e.UsesStandard = *secret, false
	}
	e.ModifiedAt = new(f.now())
	return e, nil
}

func (f *Fake) deleteEndpoint(r *request) (any, error) {
	e, err := f.endpoints.named(r)
	if err != nil {
		return nil, err
	}
	f.disable(e)
	e.isDeleted = true
	f.endpoints.retire(e)
	return struct{}{}, nil
}

// resetEndpointSecret moves an endpoint to the standard scheme, at once and without overlap.
func (f *Fake) resetEndpointSecret(r *request) (any, error) {
	e, err := f.endpoints.named(r)
	if err != nil {
		return nil, err
	}
	e.Secret, e.UsesStandard, e.ModifiedAt = f.generateSecret(), true, new(f.now())
	return e, nil
}

// deliveryDocument is a delivery as the API lists it.
type deliveryDocument struct {
	CreatedAt  timestamp     `json:"created_at"`
	ModifiedAt *timestamp    `json:"modified_at"`
	ID         string        `json:"id"`
	Succeeded  bool          `json:"succeeded"`
	HTTPCode   *int          `json:"http_code"`
	Response   *string       `json:"response"`
	Event      eventDocument `json:"webhook_event"`
}

type eventDocument struct {
	CreatedAt    timestamp  `json:"created_at"`
	ModifiedAt   *timestamp `json:"modified_at"`
	ID           string     `json:"id"`
	LastHTTPCode *int       `json:"last_http_code"`
	Succeeded    *bool      `json:"succeeded"`
	Skipped      bool       `json:"skipped"`
	APIVersion   string     `json:"api_version"`
	Payload      *string    `json:"payload"`
	Type         string     `json:"type"`
	IsArchived   bool       `json:"is_archived"`
}

func (f *Fake) deliveryDocument(d *delivery) deliveryDocument {
	ev := d.event
	document := deliveryDocument{
		CreatedAt: d.createdAt, ID: d.id, Succeeded: d.succeeded, HTTPCode: d.code, Response: d.response,
		Event: eventDocument{
			CreatedAt: ev.createdAt, ModifiedAt: ev.modifiedAt, ID: ev.id, LastHTTPCode: ev.lastCode, Succeeded: ev.succeeded,
			Skipped: ev.skipped, APIVersion: ev.apiVersion, Type: ev.eventType, IsArchived: f.isArchived(ev),
		},
	}
	if !document.Event.IsArchived {
		document.Event.Payload = new(string(ev.payload))
	}
	return document
}

// listDeliveries answers GET /v1/webhooks/deliveries, newest first. Over many of them, and not narrowed down on both
// sides by time, Polar is known to time out.
func (f *Fake) listDeliveries(r *request) (any, error) {
	query := r.query()
	endpoints, types := query.identifiers("endpoint_id"), query.choices("event_type", EventTypes)
	from, until := query.moment("start_timestamp"), query.moment("end_timestamp")
	succeeded, classes := query.boolean("succeeded"), query.choices("http_code_class", []string{"2xx", "3xx", "4xx", "5xx"})
	paging := query.paging()
	if err := query.err(); err != nil {
		return nil, err
	}
	if most := f.options.MaxUndatedDeliveries; most > 0 && len(f.deliveries) > most && (from == nil || until == nil) {
		return nil, errGatewayTimeout
	}
	search := query.text("query")

	return listing[*delivery]{
		all: f.deliveries,
		allow: func(d *delivery) bool {
			return !d.event.endpoint.isDeleted && endpoints.allow(d.event.endpoint.ID) && types.allow(d.event.eventType) &&
				(from == nil || d.createdAt.After(*from)) && (until == nil || d.createdAt.Before(*until)) &&
				(succeeded == nil || *succeeded == d.succeeded) && classes.allowOptional(d.class()) &&
				(search == "" || strings.Contains(d.event.id, search) || containsFold(string(d.event.payload), search))
		},
		render: func(d *delivery) any { return f.deliveryDocument(d) },
	}.page(paging.filtered()), nil
}

func (f *Fake) redeliverEvent(r *request) (any, error) {
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	ev, ok := f.eventsByID[id]
	if !ok || ev.endpoint.isDeleted {
		return nil, errNotFound()
	}
	f.redeliver(ev)
	return nil, nil //nolint:nilnil // Polar answers null
}
