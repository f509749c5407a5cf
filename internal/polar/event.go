package polar

// The types of Polar's events. New ones appear often, so no code may rely on
// this list being complete.
const (
	EventCheckoutCreated = "checkout.created"
	EventCheckoutUpdated = "checkout.updated"
	EventCheckoutExpired = "checkout.expired"

	EventCustomerCreated      = "customer.created"
	EventCustomerUpdated      = "customer.updated"
	EventCustomerDeleted      = "customer.deleted"
	EventCustomerStateChanged = "customer.state_changed"

	EventCustomerSeatAssigned = "customer_seat.assigned"
	EventCustomerSeatClaimed  = "customer_seat.claimed"
	EventCustomerSeatRevoked  = "customer_seat.revoked"

	EventMemberCreated = "member.created"
	EventMemberUpdated = "member.updated"
	EventMemberDeleted = "member.deleted"

	EventOrderCreated  = "order.created"
	EventOrderUpdated  = "order.updated"
	EventOrderPaid     = "order.paid"
	EventOrderRefunded = "order.refunded"

	EventSubscriptionCreated    = "subscription.created"
	EventSubscriptionUpdated    = "subscription.updated"
	EventSubscriptionActive     = "subscription.active"
	EventSubscriptionCanceled   = "subscription.canceled"
	EventSubscriptionUncanceled = "subscription.uncanceled"
	EventSubscriptionCycled     = "subscription.cycled"
	EventSubscriptionRevoked    = "subscription.revoked"
	EventSubscriptionPastDue    = "subscription.past_due"
	EventSubscriptionPaused     = "subscription.paused"
	EventSubscriptionResumed    = "subscription.resumed"
	EventSubscriptionMigrated   = "subscription.migrated"

	EventRefundCreated = "refund.created"
	EventRefundUpdated = "refund.updated"

	EventProductCreated = "product.created"
	EventProductUpdated = "product.updated"

	EventDiscountCreated = "discount.created"
	EventDiscountUpdated = "discount.updated"
	EventDiscountDeleted = "discount.deleted"

	EventBenefitCreated = "benefit.created"
	EventBenefitUpdated = "benefit.updated"

	EventBenefitGrantCreated = "benefit_grant.created"
	EventBenefitGrantUpdated = "benefit_grant.updated"
	EventBenefitGrantCycled  = "benefit_grant.cycled"
	EventBenefitGrantRevoked = "benefit_grant.revoked"

	EventOrganizationUpdated = "organization.updated"
)

// EventTypes returns the types of Polar's events that are known, in the order
// of their objects.
func EventTypes() []string {
	return []string{
		EventCheckoutCreated,
		EventCheckoutUpdated,
		EventCheckoutExpired,
		EventCustomerCreated,
		EventCustomerUpdated,
		EventCustomerDeleted,
		EventCustomerStateChanged,
		EventCustomerSeatAssigned,
		EventCustomerSeatClaimed,
		EventCustomerSeatRevoked,
		EventMemberCreated,
		EventMemberUpdated,
		EventMemberDeleted,
		EventOrderCreated,
		EventOrderUpdated,
		EventOrderPaid,
		EventOrderRefunded,
		EventSubscriptionCreated,
		EventSubscriptionUpdated,
		EventSubscriptionActive,
		EventSubscriptionCanceled,
		EventSubscriptionUncanceled,
		EventSubscriptionCycled,
		EventSubscriptionRevoked,
		EventSubscriptionPastDue,
		EventSubscriptionPaused,
		EventSubscriptionResumed,
		EventSubscriptionMigrated,
		EventRefundCreated,
		EventRefundUpdated,
		EventProductCreated,
		EventProductUpdated,
		EventDiscountCreated,
		EventDiscountUpdated,
		EventDiscountDeleted,
		EventBenefitCreated,
		EventBenefitUpdated,
		EventBenefitGrantCreated,
		EventBenefitGrantUpdated,
		EventBenefitGrantCycled,
		EventBenefitGrantRevoked,
		EventOrganizationUpdated,
	}
}
