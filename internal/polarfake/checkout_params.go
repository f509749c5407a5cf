package polarfake

import "slices"

// checkoutParams is a well-formed request for a checkout session.
type checkoutParams struct {
	products               []string
	prices                 map[string][]price
	currency               *string
	amount                 *int64
	seats                  *int64
	minSeats               *int64
	maxSeats               *int64
	units                  *int64
	minUnits               *int64
	maxUnits               *int64
	discountID             *string
	allowDiscountCodes     bool
	requireBillingAddress  bool
	allowTrial             bool
	trialInterval          *string
	trialIntervalCount     *int64
	customerID             *string
	externalCustomerID     *string
	subscriptionID         *string
	isBusinessCustomer     bool
	customerName           *string
	customerEmail          *string
	customerIPAddress      *string
	customerBillingName    *string
	customerBillingAddress *address
	taxID                  []string
	customerMetadata       metadata
	metadata               metadata
	customFieldData        map[string]any
	successURL             *string
	returnURL              *string
	embedOrigin            *string
}

var trialIntervals = []string{"day", "week", "month", "year"}

// readCheckoutParams reads the body of POST /v1/checkouts/. What is wrong is found in the problems of body.
func (f *Fake) readCheckoutParams(body fields) *checkoutParams {
	params := &checkoutParams{
		currency:               body.choice("currency", presentmentCurrencies),
		amount:                 body.integer("amount", 0, maximumAmount),
		seats:                  body.integer("seats", 1, maximumSeats),
		minSeats:               body.integer("min_seats", 1, maximumSeats),
		maxSeats:               body.integer("max_seats", 1, maximumSeats),
		units:                  body.integer("units", 1, 1<<53),
		minUnits:               body.integer("min_units", 1, 1<<53),
		maxUnits:               body.integer("max_units", 1, 1<<53),
		discountID:             body.identifier("discount_id"),
		allowDiscountCodes:     body.boolean("allow_discount_codes", true),
		requireBillingAddress:  body.boolean("require_billing_address", false),
		allowTrial:             body.boolean("allow_trial", true),
		customerID:             body.identifier("customer_id"),
		subscriptionID:         body.identifier("subscription_id"),
		isBusinessCustomer:     body.boolean("is_business_customer", false),
		customerName:           body.text("customer_name", 0, 256),
		customerEmail:          body.email("customer_email"),
		customerIPAddress:      body.ip("customer_ip_address"),
		customerBillingName:    body.text("customer_billing_name", 0, 0),
		customerBillingAddress: body.address("customer_billing_address"),
		customerMetadata:       body.metadata("customer_metadata"),
		metadata:               body.metadata("metadata"),
		customFieldData:        readCustomFieldData(body),
		successURL:             body.webURL("success_url"),
		returnURL:              body.webURL("return_url"),
		embedOrigin:            body.text("embed_origin", 0, 0),
	}
	body.locale()
	params.trialInterval, params.trialIntervalCount = readTrial(body)
	params.taxID = body.taxID("customer_tax_id", params.customerBillingAddress)
	params.externalCustomerID = body.nullableText("external_customer_id")
	if !body.has("external_customer_id") {
		params.externalCustomerID = body.nullableText("customer_external_id") // deprecated, still accepted
	}
	checkRange(body, "min_seats", params.minSeats, "max_seats", params.maxSeats)
	checkRange(body, "min_units", params.minUnits, "max_units", params.maxUnits)
	params.products = readProducts(body)
	params.prices = f.readPrices(body)
	return params
}

func readProducts(body fields) []string {
	if !body.require("products") {
		return nil
	}
	list, ok := body.list("products", 1)
	if !ok {
		return nil
	}
	var products []string
	for i, element := range list {
		id, ok := body.checkIdentifier(body.at("products", i), element)
		if !ok {
			continue
		}
		if slices.Contains(products, id) {
			body.failValue(body.at("products"), "Value error, List items should be unique", list)
			continue
		}
		products = append(products, id)
	}
	return products
}

func (f *Fake) readPrices(body fields) map[string][]price {
	given, ok := body.object("prices")
	if !ok {
		return nil
	}
	now := f.now()
	prices := make(map[string][]price)
	for _, key := range sortedKeys(given.values) {
		id, ok := given.checkIdentifier(given.at(key, "[key]"), key)
		if !ok {
			continue
		}
		list, ok := given.checkList(given.at(key), given.values[key], 1)
		if !ok {
			continue
		}
		sold := f.catalog.products.byID[id]
		if sold == nil {
			// That the product does not exist, or was not listed, is told once the form is right.
			sold = &product{productCommon: productCommon{ID: id, RecurringInterval: new("month")}}
		}
		prices[id] = nil
		for i, element := range list {
			entry, ok := given.checkObject(given.at(key, i), element)
			if !ok {
				continue
			}
			if read := f.readPrice(entry, sold, now); read != nil {
				prices[id] = append(prices[id], read)
			}
		}
		checkCombination(given, given.at(key), prices[id])
	}
	return prices
}

// readTrial reads the two fields of a trial, which come together or not at all.
func readTrial(body fields) (interval *string, count *int64) {
	before := len(*body.problems)
	interval = body.choice("trial_interval", trialIntervals)
	count = body.integer("trial_interval_count", 1, 1000)
	if len(*body.problems) == before && (interval == nil) != (count == nil) {
		body.failValue(body.at(), "Value error, Both trial_interval and trial_interval_count must be set together", body.values)
	}
	return interval, count
}

func checkRange(body fields, leastName string, least *int64, mostName string, most *int64) {
	if least != nil && most != nil && *most < *least {
		body.failValue(body.at(mostName), "Value error, "+mostName+" must be greater than or equal to "+leastName, *most)
	}
}

func readCustomFieldData(body fields) map[string]any {
	if !body.has("custom_field_data") {
		return map[string]any{}
	}
	given, ok := body.values["custom_field_data"].(map[string]any)
	if !ok {
		body.fail(body.at("custom_field_data"), "dict_type", "Input should be a valid dictionary", body.values["custom_field_data"], nil)
		return map[string]any{}
	}
	for _, key := range sortedKeys(given) {
		switch value := given[key].(type) {
		case []any, map[string]any:
			body.fail(body.at("custom_field_data", key), "string_type", "Input should be a valid string", value, nil)
		}
	}
	return given
}

func (f *Fake) updateCheckout(r *request) (any, error) {
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	c, ok := f.checkouts.byID[id]
	if !ok {
		return nil, errNotFound()
	}
	update, productID := f.readCheckoutUpdate(body, *c)
	if err := body.err(); err != nil {
		return nil, err
	}
	if c.Status != statusOpen {
		return nil, errNotOpen()
	}
	if body.has("discount_id") {
		update.discount, update.DiscountID, update.Discount = nil, nil, nil
		f.chooseDiscount(body, &update, body.identifier("discount_id"))
	}
	if productID != nil {
		if _, ok := c.Prices[*productID]; !ok {
			body.failValue(body.at("product_id"), "Product is not available in this checkout.", *productID)
		}
	}
	if err := body.ruleErr(); err != nil {
		return nil, err
	}
	currency := firstOf(body.choice("currency", presentmentCurrencies), &c.Currency)
	f.selectProduct(body, &update, *firstOf(productID, c.ProductID), currency)
	if err := body.ruleErr(); err != nil {
		return nil, err
	}
	*c = update
	f.touchCheckout(c)
	return c, nil
}

// readCheckoutUpdate applies the well-formed part of a PATCH to a copy of the session.
func (f *Fake) readCheckoutUpdate(body fields, c checkout) (update checkout, productID *string) {
	body.identifier("discount_id")
	body.choice("currency", presentmentCurrencies)
	productID = body.identifier("product_id")
	if productID != nil && *productID != deref(c.ProductID) {
		c.chosenAmount, c.Seats, c.Units = nil, nil, nil
	}
	c.chosenAmount = firstOf(body.integer("amount", 0, maximumAmount), c.chosenAmount)
	c.Seats = firstOf(body.integer("seats", 1, maximumSeats), c.Seats)
	c.Units = firstOf(body.integer("units", 1, 1<<53), c.Units)
	c.CustomerName = firstOf(body.text("customer_name", 0, 256), c.CustomerName)
	if email := body.email("customer_email"); email != nil && c.CustomerID == nil { // locked once there is a customer
		c.CustomerEmail = email
	}
	c.CustomerBillingName = firstOf(body.text("customer_billing_name", 0, 0), c.CustomerBillingName)
	c.CustomerBillingAddress = firstOf(body.address("customer_billing_address"), c.CustomerBillingAddress)
	if taxID := body.taxID("customer_tax_id", c.CustomerBillingAddress); taxID != nil {
		c.taxID, c.CustomerTaxID = taxID, &taxID[0]
	}
	c.CustomerIPAddress = firstOf(body.ip("customer_ip_address"), c.CustomerIPAddress)
	c.IsBusinessCustomer = *firstOf(body.optionalBoolean("is_business_customer"), &c.IsBusinessCustomer)
	c.AllowDiscountCodes = *firstOf(body.optionalBoolean("allow_discount_codes"), &c.AllowDiscountCodes)
	c.RequireBillingAddress = *firstOf(body.optionalBoolean("require_billing_address"), &c.RequireBillingAddress)
	c.AllowTrial = firstOf(body.optionalBoolean("allow_trial"), c.AllowTrial)
	body.locale()
	if interval, count := readTrial(body); interval != nil {
		c.TrialInterval, c.TrialIntervalCount = interval, count
	}
	if body.has("metadata") {
		c.Metadata = body.metadata("metadata")
	}
	if given := body.nullableMetadata("customer_metadata"); len(given) > 0 {
		c.CustomerMetadata = given
	}
	if body.has("custom_field_data") {
		c.CustomFieldData = readCustomFieldData(body)
	}
	if url := body.webURL("success_url"); url != nil {
		c.successTemplate, c.SuccessURL = *url, resolvePlaceholder(*url, c.ID)
	}
	c.ReturnURL = firstOf(body.webURL("return_url"), c.ReturnURL)
	c.EmbedOrigin = firstOf(body.text("embed_origin", 0, 0), c.EmbedOrigin)
	c.setAddressFields()
	return c, productID
}
