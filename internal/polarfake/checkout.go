package polarfake

import (
	"encoding/json"
	"strings"
	"time"
)

// checkoutTTL is how long the URL of a checkout session is good.
const checkoutTTL = 24 * time.Hour

// The states of a checkout session. Polar knows "failed" too, but never assigns it.
const (
	statusOpen      = "open"
	statusConfirmed = "confirmed"
	statusSucceeded = "succeeded"
	statusExpired   = "expired"
)

var checkoutStatuses = []string{statusOpen, statusExpired, statusConfirmed, statusSucceeded, "failed"}

// checkout is a checkout session; its exported fields are its document.
type checkout struct {
	ID                       string               `json:"id"`
	CreatedAt                timestamp            `json:"created_at"`
	ModifiedAt               *timestamp           `json:"modified_at"`
	CustomFieldData          map[string]any       `json:"custom_field_data"`
	PaymentProcessor         string               `json:"payment_processor"`
	Status                   string               `json:"status"`
	ClientSecret             string               `json:"client_secret"`
	URL                      string               `json:"url"`
	ExpiresAt                timestamp            `json:"expires_at"`
	SuccessURL               string               `json:"success_url"`
	ReturnURL                *string              `json:"return_url"`
	EmbedOrigin              *string              `json:"embed_origin"`
	Amount                   int64                `json:"amount"`
	Seats                    *int64               `json:"seats"`
	MinSeats                 *int64               `json:"min_seats"`
	MaxSeats                 *int64               `json:"max_seats"`
	Units                    *int64               `json:"units"`
	MinUnits                 *int64               `json:"min_units"`
	MaxUnits                 *int64               `json:"max_units"`
	DiscountAmount           int64                `json:"discount_amount"`
	NetAmount                int64                `json:"net_amount"`
	TaxAmount                *int64               `json:"tax_amount"`
	TaxBehavior              *string              `json:"tax_behavior"`
	TotalAmount              int64                `json:"total_amount"`
	SubtotalAmount           int64                `json:"subtotal_amount"`
	Currency                 string               `json:"currency"`
	AllowTrial               *bool                `json:"allow_trial"`
	ActiveTrialInterval      *string              `json:"active_trial_interval"`
	ActiveTrialIntervalCount *int64               `json:"active_trial_interval_count"`
	TrialEnd                 *timestamp           `json:"trial_end"`
	OrganizationID           string               `json:"organization_id"`
	ProductID                *string              `json:"product_id"`
	ProductPriceID           *string              `json:"product_price_id"`
	DiscountID               *string              `json:"discount_id"`
	AllowDiscountCodes       bool                 `json:"allow_discount_codes"`
	RequireBillingAddress    bool                 `json:"require_billing_address"`
	IsDiscountApplicable     bool                 `json:"is_discount_applicable"`
	IsFreeProductPrice       bool                 `json:"is_free_product_price"`
	IsPaymentRequired        bool                 `json:"is_payment_required"`
	IsPaymentSetupRequired   bool                 `json:"is_payment_setup_required"`
	IsPaymentFormRequired    bool                 `json:"is_payment_form_required"`
	CustomerID               *string              `json:"customer_id"`
	IsBusinessCustomer       bool                 `json:"is_business_customer"`
	CustomerName             *string              `json:"customer_name"`
	CustomerEmail            *string              `json:"customer_email"`
	CustomerIPAddress        *string              `json:"customer_ip_address"`
	CustomerBillingName      *string              `json:"customer_billing_name"`
	CustomerBillingAddress   *address             `json:"customer_billing_address"`
	CustomerTaxID            *string              `json:"customer_tax_id"`
	Locale                   *string              `json:"locale"`
	PaymentMethodType        *string              `json:"payment_method_type"`
	PaymentProcessorMetadata map[string]string    `json:"payment_processor_metadata"`
	BillingAddressFields     billingAddressFields `json:"billing_address_fields"`
	HiddenAddressFields      hiddenAddressFields  `json:"customer_billing_address_fields"`
	TrialInterval            *string              `json:"trial_interval"`
	TrialIntervalCount       *int64               `json:"trial_interval_count"`
	Metadata                 metadata             `json:"metadata"`
	ExternalCustomerID       *string              `json:"external_customer_id"`
	CustomerExternalID       *string              `json:"customer_external_id"` // the same, by its old name
	Products                 []*checkoutProduct   `json:"products"`
	Product                  *checkoutProduct     `json:"product"`
	ProductPrice             price                `json:"product_price"`
	Prices                   map[string][]price   `json:"prices"`
	Discount                 *discountMinimal     `json:"discount"`
	SubscriptionID           *string              `json:"subscription_id"`
	AttachedCustomFields     []string             `json:"attached_custom_fields"`
	CustomerMetadata         metadata             `json:"customer_metadata"`

	taxID           []string
	successTemplate string
	chosenAmount    *int64
	discount        *discount
	sequence        int64
}

type billingAddressFields struct {
	Country    string `json:"country"`
	State      string `json:"state"`
	City       string `json:"city"`
	PostalCode string `json:"postal_code"`
	Line1      string `json:"line1"`
	Line2      string `json:"line2"`
}

// hiddenAddressFields are sent though the OpenAPI document has no word of them.
type hiddenAddressFields struct {
	Country    bool `json:"country"`
	State      bool `json:"state"`
	City       bool `json:"city"`
	PostalCode bool `json:"postal_code"`
	Line1      bool `json:"line1"`
	Line2      bool `json:"line2"`
}

// checkoutIndex keeps the sessions.
type checkoutIndex struct {
	shelf[*checkout]

	bySecret map[string]*checkout
}

func newCheckoutIndex() checkoutIndex {
	return checkoutIndex{shelf: newShelf(func(c *checkout) any { return c }), bySecret: make(map[string]*checkout)}
}

func (i *checkoutIndex) add(c *checkout) {
	i.shelf.add(c)
	i.bySecret[c.ClientSecret] = c
}

func (c *checkout) standing() (id string, created rank) {
	return c.ID, rank{at: c.CreatedAt.Time, sequence: c.sequence}
}

// soldIn returns the product that a session is about, also when it is gone.
func (c *catalog) soldIn(session *checkout) *product {
	sold, _ := c.products.ever(*session.ProductID)
	return sold
}

// Checkouts returns the documents of all checkout sessions, oldest first.
func (f *Fake) Checkouts() []json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()

	return f.checkouts.documents()
}

// Checkout returns the document of one checkout session, or nil.
func (f *Fake) Checkout(id string) json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()

	if found, ok := f.checkouts.byID[id]; ok {
		return encode(found)
	}
	return nil
}

// CreateCheckout does what POST /v1/checkouts/ does with the body and returns the document.
func (f *Fake) CreateCheckout(body string) (json.RawMessage, error) {
	return f.call(f.createCheckout, body, nil)
}

// UpdateCheckout does what PATCH /v1/checkouts/{id} does with the body and returns the document.
func (f *Fake) UpdateCheckout(id, body string) (json.RawMessage, error) {
	return f.call(f.updateCheckout, body, map[string]string{"id": id})
}

func (f *Fake) createCheckout(r *request) (any, error) {
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	params := f.readCheckoutParams(body)
	if err := body.err(); err != nil {
		return nil, err
	}
	now := f.now()
	c, err := f.newCheckout(body, params, now)
	if err != nil {
		return nil, err
	}
	if c.CustomerIPAddress == nil {
		c.CustomerIPAddress = r.clientIP()
	}
	base := f.baseURL(r.Request)
	c.URL = base + "/checkout/" + c.ClientSecret
	if c.successTemplate == "" {
		c.successTemplate = c.URL + "/confirmation"
	}
	c.SuccessURL = resolvePlaceholder(c.successTemplate, c.ID)
	f.checkouts.add(c)
	f.emit("checkout.created", c.ID, c)
	return c, nil
}

// newCheckout applies the rules that need to know what else there is.
func (f *Fake) newCheckout(body fields, params *checkoutParams, now timestamp) (*checkout, error) {
	c := &checkout{
		ID: f.newID(), CreatedAt: now, CustomFieldData: params.customFieldData, PaymentProcessor: "stripe", Status: statusOpen,
		ClientSecret: "polar_c_" + f.newSecret(), ExpiresAt: now.add(checkoutTTL),
		ReturnURL: params.returnURL, EmbedOrigin: params.embedOrigin, successTemplate: deref(params.successURL),
		Seats: params.seats, MinSeats: params.minSeats, MaxSeats: params.maxSeats,
		Units: params.units, MinUnits: params.minUnits, MaxUnits: params.maxUnits,
		AllowTrial: &params.allowTrial, TrialInterval: params.trialInterval, TrialIntervalCount: params.trialIntervalCount,
		OrganizationID: OrganizationID, AllowDiscountCodes: params.allowDiscountCodes,
		RequireBillingAddress: params.requireBillingAddress, IsBusinessCustomer: params.isBusinessCustomer,
		CustomerName: params.customerName, CustomerEmail: params.customerEmail, CustomerIPAddress: params.customerIPAddress,
		CustomerBillingName: params.customerBillingName, CustomerBillingAddress: params.customerBillingAddress,
		// The organization does not have localization, so that the buyer's language is not heard.
		Locale:                   new("en"),
		PaymentProcessorMetadata: map[string]string{"publishable_key": "pk_test_fake"},
		Metadata:                 params.metadata, CustomerMetadata: params.customerMetadata,
		ExternalCustomerID: params.externalCustomerID, CustomerExternalID: params.externalCustomerID,
		Prices: make(map[string][]price), AttachedCustomFields: []string{}, chosenAmount: params.amount,
		sequence: f.next(),
	}
	c.setAddressFields()
	if params.taxID != nil {
		c.taxID = params.taxID
		c.CustomerTaxID = &params.taxID[0]
	}

	f.choosePrices(body, params, c)
	f.chooseCustomer(body, params, c)
	if err := body.ruleErr(); err != nil {
		return nil, err
	}
	f.selectProduct(body, c, params.products[0], params.currency)
	if err := body.ruleErr(); err != nil {
		return nil, err
	}
	return c, nil
}

// choosePrices looks the products up and gives each its prices: those of the request or those of the catalogue.
func (f *Fake) choosePrices(body fields, params *checkoutParams, c *checkout) {
	for i, id := range params.products {
		found, ok := f.catalog.products.byID[id]
		switch {
		case !ok || len(found.Prices) == 0:
			body.failValue(body.at("products", i), "Product does not exist.", id)
			continue
		case found.IsArchived:
			body.failValue(body.at("products", i), "Product is archived.", id)
			continue
		}
		c.Products = append(c.Products, found.view)
		c.Prices[id] = found.Prices
		if prices, ok := params.prices[id]; ok {
			c.Prices[id] = prices
		}
	}
	for _, id := range sortedKeys(params.prices) {
		if _, ok := c.Prices[id]; !ok {
			body.failValue(body.at("prices", id), "Price references a product that is not in the products list.", id)
		}
	}
	f.chooseDiscount(body, c, params.discountID)
}

// chooseDiscount gives a session a discount that can be used for the first of its products.
func (f *Fake) chooseDiscount(body fields, c *checkout, id *string) {
	if id == nil || len(c.Products) == 0 {
		return
	}
	d, exists := f.catalog.discounts.byID[*id]
	if !exists || !d.applies(f.catalog.products.byID[c.Products[0].ID], f.now()) {
		body.failValue(body.at("discount_id"), "Discount does not exist.", *id)
		return
	}
	c.discount, c.DiscountID, c.Discount = d, &d.ID, d.minimal()
}

// chooseCustomer ties a session to a customer who exists already. A subscription to upgrade comes before a customer
// id, and that before an external id. An external id that nobody bears is fine and is not looked up again.
func (f *Fake) chooseCustomer(body fields, params *checkoutParams, c *checkout) {
	var linked *customer
	switch {
	case params.subscriptionID != nil:
		upgraded, ok := f.sales.subscriptions.byID[*params.subscriptionID]
		switch {
		case !ok:
			body.failValue(body.at("subscription_id"), "Subscription does not exist.", *params.subscriptionID)
		case upgraded.Amount > 0:
			body.failValue(body.at("subscription_id"), "Only free subscriptions can be upgraded.", *params.subscriptionID)
		default:
			linked = upgraded.owner
			c.SubscriptionID = &upgraded.ID
		}
	case params.customerID != nil:
		found, ok := f.customers.byID[*params.customerID]
		if !ok {
			body.failValue(body.at("customer_id"), "Customer does not exist.", *params.customerID)
			return
		}
		linked = found
	case params.externalCustomerID != nil:
		linked = f.customers.byExternalID[*params.externalCustomerID]
	}
	if linked == nil {
		return
	}
	c.CustomerID = &linked.ID
	c.CustomerEmail = firstOf(c.CustomerEmail, linked.Email)
	c.CustomerName = firstOf(c.CustomerName, linked.Name)
	c.CustomerBillingName = firstOf(c.CustomerBillingName, linked.BillingName)
	c.CustomerBillingAddress = firstOf(c.CustomerBillingAddress, linked.BillingAddress)
	if c.CustomerTaxID == nil && linked.TaxID != nil {
		c.taxID, c.CustomerTaxID = linked.TaxID, &linked.TaxID[0]
	}
}

// selectProduct makes one of the session's products the one to buy.
func (f *Fake) selectProduct(body fields, c *checkout, id string, currency *string) {
	chosen := c.Prices[id][0]
	found := currency == nil
	for _, candidate := range c.Prices[id] {
		if candidate.common().Currency == deref(currency) || currency == nil && candidate.common().Currency == catalogueCurrency {
			chosen, found = candidate, true
			break
		}
	}
	if !found {
		body.failValue(body.at("currency"), "Product is not available in the specified currency.", *currency)
		return
	}
	sold, _ := f.catalog.products.ever(id)
	c.ProductID, c.Product = &sold.ID, sold.view
	c.ProductPriceID, c.ProductPrice = &chosen.common().ID, chosen
	c.Currency = chosen.common().Currency
	c.TaxBehavior = new("exclusive")
	if chosen.common().TaxBehavior != nil && *chosen.common().TaxBehavior == "inclusive" {
		c.TaxBehavior = new("inclusive")
	}
	c.checkQuantities(body)
	c.setTrial(sold)
	c.setAmounts()
}

// checkQuantities applies the rules on what the buyer may settle, and fills in what nobody did.
func (c *checkout) checkQuantities(body fields) {
	switch chosen := c.ProductPrice.(type) {
	case *customPrice:
		if c.chosenAmount != nil {
			switch {
			case *c.chosenAmount < chosen.Minimum:
				body.failValue(body.at("amount"), "Amount is below minimum.", *c.chosenAmount)
			case chosen.Maximum != nil && *c.chosenAmount > *chosen.Maximum:
				body.failValue(body.at("amount"), "Amount is above maximum.", *c.chosenAmount)
			}
		}
	case *seatPrice:
		least := max(chosen.Tiers.Minimum, deref(c.MinSeats))
		if c.Seats == nil {
			c.Seats = &least
		}
		most := firstOf(c.MaxSeats, chosen.Tiers.Maximum)
		if *c.Seats < least || most != nil && *c.Seats > *most {
			body.failValue(body.at("seats"), "The number of seats is not within the allowed range.", *c.Seats)
		}
		return
	case *unitPrice:
		least := max(1, deref(chosen.Minimum), deref(c.MinUnits))
		if c.Units == nil {
			c.Units = &least
		}
		most := firstOf(c.MaxUnits, chosen.Maximum)
		if *c.Units < least || most != nil && *c.Units > *most {
			body.failValue(body.at("units"), "The number of units is not within the allowed range.", *c.Units)
		}
	}
	if c.Seats != nil {
		body.failValue(body.at("seats"), "Seats can only be set on seat-based pricing.", *c.Seats)
	}
}

func (c *checkout) setTrial(sold *product) {
	c.ActiveTrialInterval, c.ActiveTrialIntervalCount = nil, nil
	if !deref(c.AllowTrial) || !sold.IsRecurring {
		return
	}
	c.ActiveTrialInterval = firstOf(c.TrialInterval, sold.TrialInterval)
	c.ActiveTrialIntervalCount = firstOf(c.TrialIntervalCount, sold.TrialIntervalCount)
}

func (c *checkout) setAmounts() {
	c.Amount = c.ProductPrice.charge(priceChoice{amount: c.chosenAmount, seats: c.Seats, units: c.Units})
	c.DiscountAmount = c.discount.off(c.Amount, c.Currency)
	c.SubtotalAmount, c.NetAmount = c.Amount, c.Amount-c.DiscountAmount
	c.TotalAmount = c.NetAmount
	if c.CustomerBillingAddress != nil {
		c.TaxAmount = new(int64(0))
	}
	fixed, isFixed := c.ProductPrice.(*fixedPrice)
	c.IsFreeProductPrice = isFixed && fixed.Amount == 0
	c.IsDiscountApplicable = !c.IsFreeProductPrice
	c.IsPaymentRequired = c.TotalAmount > 0 && c.ActiveTrialInterval == nil
	c.IsPaymentSetupRequired = c.Product.IsRecurring && !c.IsFreeProductPrice && !c.IsPaymentRequired
	c.IsPaymentFormRequired = c.IsPaymentRequired || c.IsPaymentSetupRequired
}

func (c *checkout) setAddressFields() {
	c.BillingAddressFields = billingAddressFields{
		Country: "required", State: "disabled", City: "disabled", PostalCode: "disabled", Line1: "disabled", Line2: "disabled",
	}
	c.HiddenAddressFields = hiddenAddressFields{Country: true}
	if c.RequireBillingAddress || c.IsBusinessCustomer {
		c.BillingAddressFields = billingAddressFields{
			Country: "required", State: "optional", City: "required", PostalCode: "required", Line1: "required", Line2: "optional",
		}
		c.HiddenAddressFields = hiddenAddressFields{Country: true, State: true, City: true, PostalCode: true, Line1: true, Line2: true}
	}
}

// firstOf returns the first that is set.
func firstOf[T any](candidates ...*T) *T {
	for _, candidate := range candidates {
		if candidate != nil {
			return candidate
		}
	}
	return nil
}

func (f *Fake) listCheckouts(r *request) (any, error) {
	query := r.query()
	organizations, products := query.identifiers("organization_id"), query.identifiers("product_id")
	customers, externalIDs := query.identifiers("customer_id"), query.texts("external_customer_id")
	statuses := query.choices("status", checkoutStatuses)
	paging := query.paging("created_at", "expires_at", "status")
	if err := query.err(); err != nil {
		return nil, err
	}
	search := query.text("query")

	return listing[*checkout]{
		all: f.checkouts.all, order: "created_at", render: f.checkouts.render,
		allow: func(c *checkout) bool {
			return organizations.allow(OrganizationID) && products.allowOptional(c.ProductID) && statuses.allow(c.Status) &&
				customers.allowOptional(c.CustomerID) && f.bearsExternalID(c, externalIDs) &&
				containsFold(deref(c.CustomerEmail), search)
		},
		key: func(c *checkout, by string) sortable {
			switch by {
			case "status":
				return byText(c.Status)
			case "expires_at":
				return byTime(c.ExpiresAt)
			}
			return byTime(c.CreatedAt)
		},
	}.page(paging), nil
}

// bearsExternalID is Polar's filter by external id. It joins the customers, so that it misses every session whose
// customer does not exist yet, and looks past the session's own external_customer_id.
func (f *Fake) bearsExternalID(c *checkout, externalIDs filter) bool {
	if len(externalIDs) == 0 {
		return true
	}
	if c.CustomerID == nil {
		return false
	}
	owner, exists := f.customers.byID[*c.CustomerID]
	return exists && externalIDs.allowOptional(owner.ExternalID)
}

// resolvePlaceholder puts the session's id where a success_url asks for it.
func resolvePlaceholder(url, checkoutID string) string {
	return strings.ReplaceAll(url, "{CHECKOUT_ID}", checkoutID)
}
