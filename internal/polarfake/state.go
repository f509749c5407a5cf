package polarfake

// customerState is a customer with what they have access to.
type customerState struct {
	customer
	ActiveSubscriptions []stateSubscription `json:"active_subscriptions"`
	GrantedBenefits     []stateGrant        `json:"granted_benefits"`
	ActiveMeters        []string            `json:"active_meters"`
}

type stateSubscription struct {
	ID                 string         `json:"id"`
	CreatedAt          timestamp      `json:"created_at"`
	ModifiedAt         *timestamp     `json:"modified_at"`
	CustomFieldData    map[string]any `json:"custom_field_data"`
	Metadata           metadata       `json:"metadata"`
	Status             string         `json:"status"`
	Amount             int64          `json:"amount"`
	Currency           string         `json:"currency"`
	RecurringInterval  string         `json:"recurring_interval"`
	CurrentPeriodStart timestamp      `json:"current_period_start"`
	CurrentPeriodEnd   timestamp      `json:"current_period_end"`
	TrialStart         *timestamp     `json:"trial_start"`
	TrialEnd           *timestamp     `json:"trial_end"`
	CancelAtPeriodEnd  bool           `json:"cancel_at_period_end"`
	CanceledAt         *timestamp     `json:"canceled_at"`
	StartedAt          *timestamp     `json:"started_at"`
	EndsAt             *timestamp     `json:"ends_at"`
	ProductID          string         `json:"product_id"`
	PriceID            *string        `json:"price_id"` // deprecated, not in the OpenAPI document
	DiscountID         *string        `json:"discount_id"`
	Meters             []string       `json:"meters"`
}

type stateGrant struct {
	ID              string         `json:"id"`
	CreatedAt       timestamp      `json:"created_at"`
	ModifiedAt      *timestamp     `json:"modified_at"`
	GrantedAt       *timestamp     `json:"granted_at"`
	BenefitID       string         `json:"benefit_id"`
	BenefitType     string         `json:"benefit_type"`
	BenefitMetadata metadata       `json:"benefit_metadata"`
	Properties      map[string]any `json:"properties"`
}

func (c *customer) state() customerState {
	state := customerState{
		customer: c.document(), ActiveSubscriptions: []stateSubscription{}, GrantedBenefits: []stateGrant{}, ActiveMeters: []string{},
	}
	for _, s := range c.subscriptions {
		if !s.isRunning() {
			continue
		}
		state.ActiveSubscriptions = append(state.ActiveSubscriptions, stateSubscription{
			ID: s.ID, CreatedAt: s.CreatedAt, ModifiedAt: s.ModifiedAt, CustomFieldData: s.CustomFieldData,
			Metadata: s.Metadata, Status: s.Status, Amount: s.Amount, Currency: s.Currency,
			RecurringInterval: s.RecurringInterval, CurrentPeriodStart: s.CurrentPeriodStart,
			CurrentPeriodEnd: s.CurrentPeriodEnd, TrialStart: s.TrialStart, TrialEnd: s.TrialEnd,
			CancelAtPeriodEnd: s.CancelAtPeriodEnd, CanceledAt: s.CanceledAt, StartedAt: s.StartedAt, EndsAt: s.EndsAt,
			ProductID: s.ProductID, PriceID: &s.Prices[0].common().ID, DiscountID: s.DiscountID, Meters: []string{},
		})
	}
	for _, g := range c.grants {
		if g.IsGranted {
			state.GrantedBenefits = append(state.GrantedBenefits, stateGrant{
				ID: g.ID, CreatedAt: g.CreatedAt, ModifiedAt: g.ModifiedAt, GrantedAt: g.GrantedAt, BenefitID: g.BenefitID,
				BenefitType: g.benefit.Type, BenefitMetadata: g.benefit.Metadata, Properties: g.Properties,
			})
		}
	}
	return state
}

// emitStateLater tells of a changed state, once for changes that come close together.
func (f *Fake) emitStateLater(c *customer) {
	if !c.statePending {
		f.queueCustomerJob(customerJob{customer: c, eventType: "customer.state_changed", debounced: true})
	}
}
