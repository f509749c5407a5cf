package polar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// FormatRaw is the format in which events can be read; Polar also sends messages for Discord and Slack.
const FormatRaw = "raw"

// EndpointSecret is the secret of an endpoint. It shows nowhere: not in a log,
// an error, a dump or JSON. Reveal gives it.
type EndpointSecret string

const hiddenSecret = "[hidden]"

// Reveal is the secret itself.
func (s EndpointSecret) Reveal() string { return string(s) }

func (s EndpointSecret) String() string { return hiddenSecret }

// Format hides the secret from every verb.
func (s EndpointSecret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hiddenSecret) }

// LogValue hides the secret from slog.
func (s EndpointSecret) LogValue() slog.Value { return slog.StringValue(hiddenSecret) }

// MarshalText hides the secret from JSON and other encodings.
func (s EndpointSecret) MarshalText() ([]byte, error) { return []byte(hiddenSecret), nil }

// Endpoint is Polar's record of where it sends events. It keeps no raw
// document, which would show the secret.
type Endpoint struct {
	Meta
	URL     string
	Name    string // "" if it has none
	Format  string
	Events  []string // the types it is sent
	Enabled bool
	Secret  EndpointSecret

	// LegacySigning tells that Polar signs with the bytes of the whole secret.
	// It is false where Polar does not say.
	LegacySigning bool

	ReadAt time.Time // by Polar's clock; zero if it did not say
}

// Derivation is how Polar makes the key of the endpoint's secret.
func (e Endpoint) Derivation() Derivation {
	if e.LegacySigning {
		return DerivationLegacy
	}
	return DerivationAuto
}

// EndpointCreate is an endpoint to create, always of format raw.
type EndpointCreate struct {
	URL    string
	Name   string   // "": none
	Events []string // types to send
}

// EndpointUpdate says what of an endpoint to change; zero values stay.
type EndpointUpdate struct {
	Enabled *bool    `json:"enabled,omitempty"`
	Format  string   `json:"format,omitempty"`
	Events  []string `json:"events,omitempty"`
}

// ListEndpoints reads all webhook endpoints of the organization, the time of
// the reading with them.
func (a *API) ListEndpoints(ctx context.Context) ([]Endpoint, time.Time, error) {
	var all []Endpoint
	for page := 1; ; page++ {
		c := a.newCall(http.MethodGet, "/webhooks/endpoints")
		c.query = pageQuery(page, MaxPageSize, "")
		found, err := fetchPage(ctx, a, c, readEndpoint)
		if err != nil {
			return nil, time.Time{}, err
		}
		all = append(all, found.Items...)
		if page >= found.MaxPage || len(found.Items) == 0 {
			return all, found.ReadAt, nil
		}
	}
}

// GetEndpoint reads an endpoint.
func (a *API) GetEndpoint(ctx context.Context, id uuid.UUID) (Endpoint, error) {
	return fetch(ctx, a, a.newCall(http.MethodGet, "/webhooks/endpoints/{id}", id.String()), readEndpoint)
}

// CreateEndpoint creates an endpoint of format raw, with a secret that Polar
// makes. Types of events that Polar does not know, as its version may be older
// than ours, are left out. After an error, ask [OutcomeUnknown] before doing
// it again.
func (a *API) CreateEndpoint(ctx context.Context, params EndpointCreate) (Endpoint, error) {
	if len(params.Events) == 0 {
		return Endpoint{}, errors.New("creating endpoint: it would be sent no events")
	}
	created, err := a.createEndpoint(ctx, params)
	if known := withoutUnknownEvents(err, params.Events); len(known) > 0 && len(known) < len(params.Events) {
		params.Events = known
		return a.createEndpoint(ctx, params)
	}
	return created, err
}

func (a *API) createEndpoint(ctx context.Context, params EndpointCreate) (Endpoint, error) {
	body, err := json.Marshal(struct {
		URL    string   `json:"url"`
		Name   string   `json:"name,omitempty"`
		Format string   `json:"format"`
		Events []string `json:"events"`
	}{params.URL, params.Name, FormatRaw, params.Events})
	if err != nil {
		return Endpoint{}, fmt.Errorf("encoding endpoint: %w", err)
	}
	c := a.newCall(http.MethodPost, "/webhooks/endpoints")
	c.body = body
	return fetch(ctx, a, c, readEndpoint)
}

// withoutUnknownEvents returns the types that Polar did not refuse, nil if it
// refused anything else.
func withoutUnknownEvents(err error, events []string) []string {
	apiErr, ok := errors.AsType[*APIError](err)
	if !ok || !IsValidation(err) || len(apiErr.Fields) == 0 {
		return nil
	}
	refused := make(map[string]bool)
	for _, field := range apiErr.Fields {
		if len(field.Loc) < 3 || field.Loc[0] != "body" || field.Loc[1] != "events" {
			return nil
		}
		index, err := strconv.Atoi(field.Loc[2])
		if err != nil || index < 0 || index >= len(events) {
			return nil
		}
		refused[events[index]] = true
	}
	return slices.DeleteFunc(slices.Clone(events), func(event string) bool { return refused[event] })
}

// UpdateEndpoint changes an endpoint.
func (a *API) UpdateEndpoint(ctx context.Context, id uuid.UUID, update EndpointUpdate) (Endpoint, error) {
	body, err := json.Marshal(update)
	if err != nil {
		return Endpoint{}, fmt.Errorf("encoding endpoint: %w", err)
	}
	c := a.newCall(http.MethodPatch, "/webhooks/endpoints/{id}", id.String())
	c.body = body
	return fetch(ctx, a, c, readEndpoint)
}

// DeleteEndpoint deletes an endpoint; what it was still to be sent never is.
// One that is not there is an [IsNotFound].
func (a *API) DeleteEndpoint(ctx context.Context, id uuid.UUID) error {
	_, err := a.do(ctx, a.newCall(http.MethodDelete, "/webhooks/endpoints/{id}", id.String()))
	return err
}

func readEndpoint(raw json.RawMessage, readAt time.Time) (Endpoint, error) {
	endpoint, err := decodeEndpoint(raw)
	endpoint.ReadAt = readAt
	return endpoint, err
}

func decodeEndpoint(raw json.RawMessage) (Endpoint, error) {
	meta, fields, err := decodeObject(raw)
	if err != nil {
		return Endpoint{}, fmt.Errorf("decoding endpoint: %w", err)
	}
	endpoint := Endpoint{
		Meta:          meta,
		URL:           fields.text("url"),
		Name:          fields.text("name"),
		Format:        fields.text("format"),
		Enabled:       fields.is("enabled", true),
		Secret:        EndpointSecret(fields.text("secret")),
		LegacySigning: fields.is("uses_standard_webhook_signature", false),
	}
	var events []json.RawMessage
	_ = json.Unmarshal(fields["events"], &events) // not a list: no events
	for _, event := range events {
		if eventType := jsonText(event); eventType != "" {
			endpoint.Events = append(endpoint.Events, eventType)
		}
	}
	return endpoint, nil
}

// is tells whether a member is this very boolean.
func (m members) is(name string, value bool) bool {
	return string(m[name]) == strconv.FormatBool(value)
}

// EndpointURL returns the URL of an endpoint in the one form in which two of
// them can be compared: scheme and host in lower case, without the scheme's
// own port. The path counts to the last slash, as it does to who serves it.
func EndpointURL(text string) (string, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil {
		return "", errors.New("not a URL") // err would quote it, and it may hold a password
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "":
		return "", errors.New("no URL that begins with https://, or http://, and a host")
	case u.User != nil:
		return "", errors.New("a URL with a user, which Polar does not send to")
	}
	if u.Port() == "443" && u.Scheme == "https" || u.Port() == "80" && u.Scheme == "http" {
		u.Host = strings.TrimSuffix(u.Host, ":"+u.Port())
	}
	u.Host = strings.TrimSuffix(strings.ToLower(u.Host), ":")
	u.Fragment, u.RawFragment = "", ""
	if u.Path == "" {
		u.Path = "/"
	}
	return u.String(), nil
}
