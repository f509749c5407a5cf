package polarfake

import "encoding/json"

const (
	organizationSlug  = "true-north"
	organizationName  = "True North"
	organizationEmail = "support@true-north.example"
)

// organization is the one that the fake plays: what of it can change.
type organization struct {
	CreatedAt  timestamp
	ModifiedAt *timestamp
	Name       string
	Email      *string
	Website    *string
	AvatarURL  *string
	Country    *string
	Currency   string
}

func newOrganization(now timestamp) organization {
	return organization{
		CreatedAt: now, Name: organizationName, Email: new(organizationEmail), Country: new("US"), Currency: catalogueCurrency,
	}
}

// UpdateOrganization does what PATCH /v1/organizations/{id} does with the body and returns the document. It takes
// name, email, website, avatar_url, country and default_presentment_currency.
func (f *Fake) UpdateOrganization(body string) (json.RawMessage, error) {
	return f.call(f.updateOrganization, body, map[string]string{"id": OrganizationID})
}

func (f *Fake) listOrganizations(r *request) (any, error) {
	query := r.query()
	paging := query.paging("created_at", "slug", "name", "next_review_threshold", "days_in_status")
	if err := query.err(); err != nil {
		return nil, err
	}
	slug := query.text("slug")
	return listing[map[string]any]{
		all: []map[string]any{f.organizationDocument()}, order: paging.sorting[0].by,
		allow:  func(map[string]any) bool { return slug == "" || slug == organizationSlug },
		render: func(document map[string]any) any { return document },
	}.page(paging), nil
}

func (f *Fake) checkOrganization(r *request) error {
	id, err := r.id()
	if err == nil && id != OrganizationID {
		return errNotFound()
	}
	return err
}

func (f *Fake) getOrganization(r *request) (any, error) {
	if err := f.checkOrganization(r); err != nil {
		return nil, err
	}
	return f.organizationDocument(), nil
}

func (f *Fake) updateOrganization(r *request) (any, error) {
	if err := f.checkOrganization(r); err != nil {
		return nil, err
	}
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	o := &f.organization
	after := *o
	after.Name = *firstOf(body.text("name", 3, 0), &o.Name)
	after.Currency = *firstOf(body.choice("default_presentment_currency", presentmentCurrencies), &o.Currency)
	if body.has("email") {
		after.Email = body.email("email")
	}
	if body.has("website") {
		after.Website = body.webURL("website")
	}
	if body.has("avatar_url") {
		after.AvatarURL = body.webURL("avatar_url")
	}
	if body.has("country") {
		after.Country = body.choice("country", billingCountries)
	}
	if err := body.err(); err != nil {
		return nil, err
	}
	f.revise(func() any { return f.organizationDocument() }, &o.ModifiedAt, func() { *o = after })
	f.emit("organization.updated", OrganizationID, f.organizationDocument())
	return f.organizationDocument(), nil
}

func (f *Fake) organizationDocument() map[string]any {
	o := f.organization
	return map[string]any{
		"id": OrganizationID, "created_at": o.CreatedAt, "modified_at": o.ModifiedAt, "name": o.Name,
		"slug": organizationSlug, "avatar_url": o.AvatarURL, "proration_behavior": "prorate", "allow_customer_updates": true,
		"email": o.Email, "website": o.Website, "socials": []string{}, "status": "active",
		"details_submitted_at": o.CreatedAt, "onboarding_resubmission_requested_at": nil, "sso_enforced": false,
		"default_presentment_currency": o.Currency, "default_tax_behavior": "location",
		"feature_settings": map[string]any{"member_model_enabled": true, "seat_based_pricing_enabled": true},
		"subscription_settings": map[string]any{
			"allow_multiple_subscriptions": f.options.AllowMultipleSubscriptions, "proration_behavior": "prorate",
			"benefit_revocation_grace_period": 0, "prevent_trial_abuse": false, "allow_customer_updates": true,
		},
		"customer_email_settings": map[string]any{
			"order_confirmation": true, "payment_method_expiration_reminder": true, "subscription_cancellation": true,
			"subscription_confirmation": true, "subscription_cycled": true, "subscription_cycled_after_trial": true,
			"subscription_past_due": true, "subscription_paused": true, "subscription_resumed": true,
			"subscription_renewal_reminder": true, "subscription_revoked": true,
			"subscription_trial_conversion_reminder": true, "subscription_uncanceled": true, "subscription_updated": true,
		},
		"customer_portal_settings": map[string]any{
			"usage":        map[string]any{"show": true},
			"subscription": map[string]any{"update_seats": true, "update_plan": true, "pause": false},
			"customer":     map[string]any{"allow_email_change": false},
		},
		"dispute_settings": map[string]any{"auto_accept_below_amount": nil},
		"embed_hosts":      []string{}, "embed_hosts_enforced": false, "country": o.Country, "account_id": nil, "payout_account_id": nil,
		"capabilities": map[string]any{
			"checkout_payments": true, "subscription_renewals": true, "payouts": true, "refunds": true,
			"api_access": true, "dashboard_access": true,
		},
	}
}
