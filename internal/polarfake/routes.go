package polarfake

import "net/http"

// newRoutes lists everything the fake answers.
func (f *Fake) newRoutes() *http.ServeMux {
	routes := http.NewServeMux()
	api := func(pattern string, status int, handle handler) {
		routes.Handle(pattern, f.answer(status, handle))
	}
	list := func(path string, handle handler) {
		api("GET "+path+"{$}", http.StatusOK, handle)
		f.lists["GET "+path] = true
	}
	get := func(path string, handle handler) { api("GET "+path, http.StatusOK, handle) }
	create := func(path string, handle handler) { api("POST "+path+"{$}", http.StatusCreated, handle) }
	update := func(path string, handle handler) { api("PATCH "+path, http.StatusOK, handle) }
	remove := func(path string, handle handler) { api("DELETE "+path, http.StatusNoContent, handle) }

	list("/v1/organizations/", f.listOrganizations)
	get("/v1/organizations/{id}", f.getOrganization)
	update("/v1/organizations/{id}", f.updateOrganization)

	list("/v1/products/", f.listProducts)
	create("/v1/products/", f.createProduct)
	get("/v1/products/{id}", f.catalog.products.get)
	update("/v1/products/{id}", f.updateProduct)
	api("POST /v1/products/{id}/benefits", http.StatusOK, f.updateProductBenefits)

	list("/v1/benefits/", f.listBenefits)
	create("/v1/benefits/", f.createBenefit)
	get("/v1/benefits/{id}", f.catalog.benefits.get)
	update("/v1/benefits/{id}", f.updateBenefit)
	remove("/v1/benefits/{id}", f.deleteBenefit)
	get("/v1/benefits/{id}/grants", f.listGrantsOfBenefit)
	f.lists["GET /v1/benefits/{id}/grants"] = true
	list("/v1/benefit-grants/", f.listGrants)

	list("/v1/discounts/", f.listDiscounts)
	create("/v1/discounts/", f.createDiscount)
	get("/v1/discounts/{id}", f.catalog.discounts.get)
	update("/v1/discounts/{id}", f.updateDiscount)
	remove("/v1/discounts/{id}", f.deleteDiscount)

	list("/v1/checkouts/", f.listCheckouts)
	create("/v1/checkouts/", f.createCheckout)
	get("/v1/checkouts/{id}", f.checkouts.get)
	update("/v1/checkouts/{id}", f.updateCheckout)

	list("/v1/customers/", f.listCustomers)
	create("/v1/customers/", f.createCustomer)
	get("/v1/customers/{id}", f.getCustomer)
	update("/v1/customers/{id}", f.updateCustomer)
	remove("/v1/customers/{id}", f.deleteCustomer)
	get("/v1/customers/external/{external_id}", f.getCustomer)
	update("/v1/customers/external/{external_id}", f.updateCustomer)
	remove("/v1/customers/external/{external_id}", f.deleteCustomer)
	get("/v1/customers/{id}/{view...}", f.getCustomerView)
	get("/v1/customers/external/{external_id}/state", f.getCustomerView)

	list("/v1/members/", f.listMembers)
	for path, id := range map[string]string{
		"/v1/customers/{id}/members": "member_id", "/v1/customers/external/{external_id}/members": "member_external_id",
	} {
		api("POST "+path, http.StatusCreated, f.createMember)
		update(path+"/{"+id+"}", f.updateMember)
		remove(path+"/{"+id+"}", f.deleteMember)
	}
	get("/v1/customers/external/{external_id}/members/{member_external_id}", f.getMember)

	list("/v1/orders/", f.listOrders)
	get("/v1/orders/{id}", f.sales.orders.get)
	update("/v1/orders/{id}", f.updateOrder)
	list("/v1/refunds/", f.listRefunds)
	create("/v1/refunds/", f.createRefund)

	list("/v1/subscriptions/", f.listSubscriptions)
	create("/v1/subscriptions/", f.createSubscription)
	get("/v1/subscriptions/{id}", f.sales.subscriptions.get)
	update("/v1/subscriptions/{id}", f.updateSubscription)
	api("DELETE /v1/subscriptions/{id}", http.StatusOK, f.deleteSubscription)

	get("/v1/customer-seats", f.listSeats)
	f.lists["GET /v1/customer-seats"] = true
	api("POST /v1/customer-seats", http.StatusOK, f.assignSeat)
	api("DELETE /v1/customer-seats/{id}", http.StatusOK, f.deleteSeat)

	get("/v1/webhooks/endpoints", f.listEndpoints)
	api("POST /v1/webhooks/endpoints", http.StatusCreated, f.createEndpoint)
	get("/v1/webhooks/endpoints/{id}", f.endpoints.get)
	update("/v1/webhooks/endpoints/{id}", f.updateEndpoint)
	remove("/v1/webhooks/endpoints/{id}", f.deleteEndpoint)
	update("/v1/webhooks/endpoints/{id}/secret", f.resetEndpointSecret)
	get("/v1/webhooks/deliveries", f.listDeliveries)
	f.lists["GET /v1/webhooks/endpoints"], f.lists["GET /v1/webhooks/deliveries"] = true, true
	api("POST /v1/webhooks/events/{id}/redeliver", http.StatusAccepted, f.redeliverEvent)

	f.addPageRoutes(routes)
	f.addControlRoutes(routes)
	return routes
}
