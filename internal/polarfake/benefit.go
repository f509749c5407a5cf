package polarfake

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
)

// benefit is what a purchase gives besides a receipt; its exported fields are its document.
type benefit struct {
	benefitPublic

	Metadata               metadata       `json:"metadata"`
	Visibility             string         `json:"visibility"`
	Properties             map[string]any `json:"properties"`
	VisibilityConfigurable bool           `json:"visibility_configurable"`

	sequence int64
}

type benefitPublic struct {
	ID             string     `json:"id"`
	CreatedAt      timestamp  `json:"created_at"`
	ModifiedAt     *timestamp `json:"modified_at"`
	Type           string     `json:"type"`
	Description    string     `json:"description"`
	Selectable     bool       `json:"selectable"`
	Deletable      bool       `json:"deletable"`
	IsDeleted      bool       `json:"is_deleted"`
	OrganizationID string     `json:"organization_id"`
}

// Polar's types of benefit, and those of them that the fake can make: the ones that need nobody else.
var (
	benefitTypes = []string{
		"custom", "discord", "github_repository", "downloadables", "license_keys", "meter_credit", "feature_flag",
		"slack_shared_channel",
	}
	makeableBenefitTypes = []string{"custom", "feature_flag"}
)

func (b *benefit) standing() (id string, created rank) {
	return b.ID, rank{at: b.CreatedAt.Time, sequence: b.sequence}
}

func (f *Fake) newBenefit(id, kind, description string, now timestamp) *benefit {
	return &benefit{
		benefitPublic: benefitPublic{
			ID: id, CreatedAt: now, Type: kind, Description: description, Selectable: true, Deletable: true,
			OrganizationID: OrganizationID,
		},
		Metadata: metadata{}, Visibility: "public", Properties: map[string]any{}, VisibilityConfigurable: true, sequence: f.next(),
	}
}

// CreateBenefit does what POST /v1/benefits/ does with the body and returns the document. Its type is "custom" or
// "feature_flag".
func (f *Fake) CreateBenefit(body string) (json.RawMessage, error) {
	return f.call(f.createBenefit, body, nil)
}

// UpdateBenefit does what PATCH /v1/benefits/{id} does with the body and returns the document.
func (f *Fake) UpdateBenefit(id, body string) (json.RawMessage, error) {
	return f.call(f.updateBenefit, body, map[string]string{"id": id})
}

// DeleteBenefit does what DELETE /v1/benefits/{id} does. Polar has no event for it: only the grants are told of, which
// are revoked.
func (f *Fake) DeleteBenefit(id string) error {
	_, err := f.call(f.deleteBenefit, "", map[string]string{"id": id})
	return err
}

func (f *Fake) listBenefits(r *request) (any, error) {
	query := r.query()
	organizations := query.identifiers("organization_id")
	ids, excluded, kinds := query.identifiers("id"), query.identifiers("exclude_id"), query.choices("type", benefitTypes)
	wanted, paging := query.metadata(), query.paging("created_at", "description", "type", "user_order")
	if err := query.err(); err != nil {
		return nil, err
	}
	search := query.text("query")
	return listing[*benefit]{
		all: f.catalog.benefits.all, order: "created_at", render: f.catalog.benefits.render,
		allow: func(b *benefit) bool {
			return organizations.allow(b.OrganizationID) && ids.allow(b.ID) && !slices.Contains(excluded, b.ID) &&
				kinds.allow(b.Type) && containsFold(b.Description, search) && b.Metadata.matches(wanted)
		},
		key: func(b *benefit, by string) sortable {
			switch by {
			case "description":
				return byText(b.Description)
			case "type":
				return byText(b.Type)
			}
			return byTime(b.CreatedAt) // user_order is nobody's in particular
		},
	}.page(paging), nil
}

func (f *Fake) createBenefit(r *request) (any, error) {
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"type", "description", "properties"} {
		body.require(name)
	}
	kind := deref(body.choice("type", makeableBenefitTypes))
	b := f.newBenefit(f.newID(), kind, deref(body.text("description", 3, 42)), f.now())
	b.Metadata = body.metadata("metadata")
	b.Visibility = *firstOf(body.choice("visibility", productVisibilities), &b.Visibility)
	b.Properties = readBenefitProperties(body, kind)
	if err := body.err(); err != nil {
		return nil, err
	}
	f.catalog.benefits.add(b)
	f.emit("benefit.created", b.ID, b)
	return b, nil
}

func readBenefitProperties(body fields, kind string) map[string]any {
	properties := map[string]any{}
	given, ok := body.object("properties")
	if ok && kind == "custom" {
		properties["note"] = given.text("note", 0, 0)
	}
	return properties
}

func (f *Fake) updateBenefit(r *request) (any, error) {
	b, err := f.catalog.benefits.named(r)
	if err != nil {
		return nil, err
	}
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	after := *b
	if body.require("type") {
		body.choice("type", []string{b.Type})
	}
	after.Description = *firstOf(body.text("description", 3, 42), &b.Description)
	after.Visibility = *firstOf(body.choice("visibility", productVisibilities), &b.Visibility)
	if body.has("metadata") {
		after.Metadata = body.metadata("metadata")
	}
	if _, ok := body.value("properties"); ok {
		after.Properties = readBenefitProperties(body, b.Type)
	}
	if err := body.err(); err != nil {
		return nil, err
	}

	before := b.Properties
	f.revise(func() any { return b }, &b.ModifiedAt, func() { *b = after })
	f.emit("benefit.updated", b.ID, b)
	if !reflect.DeepEqual(before, b.Properties) {
		for _, g := range f.sales.grants.all {
			if g.benefit == b && g.IsGranted {
				f.updateGrant(g, g.Properties)
			}
		}
	}
	return b, nil
}

func (f *Fake) deleteBenefit(r *request) (any, error) {
	b, err := f.catalog.benefits.named(r)
	if err != nil {
		return nil, err
	}
	if !b.Deletable {
		return nil, &APIError{Status: http.StatusForbidden, Name: "NotPermitted", Detail: "This benefit is not deletable."}
	}
	b.IsDeleted, b.ModifiedAt = true, new(f.now())
	f.catalog.benefits.retire(b)
	for _, p := range f.catalog.products.all {
		if slices.Contains(p.Benefits, b) {
			p.Benefits = without(p.Benefits, b)
			p.refreshView()
		}
	}
	for _, g := range f.sales.grants.all {
		if g.benefit == b {
			f.revokeGrant(g)
		}
	}
	return struct{}{}, nil
}
