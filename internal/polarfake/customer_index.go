package polarfake

import "strings"

// customerIndex keeps the customers. Only those who exist are found by e-mail and external id.
type customerIndex struct {
	shelf[*customer]

	byEmail      map[string]*customer // in lower case
	byExternalID map[string]*customer
}

func newCustomerIndex() customerIndex {
	return customerIndex{
		shelf:   newShelf(func(c *customer) any { return c.document() }),
		byEmail: make(map[string]*customer), byExternalID: make(map[string]*customer),
	}
}

func (i *customerIndex) add(c *customer) {
	i.shelf.add(c)
	if c.Email != nil {
		i.byEmail[strings.ToLower(*c.Email)] = c
	}
	if c.ExternalID != nil {
		i.byExternalID[*c.ExternalID] = c
	}
}

func (i *customerIndex) findEmail(email string) *customer { return i.byEmail[strings.ToLower(email)] }

func (i *customerIndex) changeEmail(c *customer, email *string) {
	if c.Email != nil {
		delete(i.byEmail, strings.ToLower(*c.Email))
	}
	c.Email = email
	if email != nil {
		i.byEmail[strings.ToLower(*email)] = c
		c.AvatarURL = avatarURL(*email)
	}
}

func (i *customerIndex) changeExternalID(c *customer, externalID *string) {
	if c.ExternalID != nil {
		delete(i.byExternalID, *c.ExternalID)
	}
	c.ExternalID = externalID
	if externalID != nil {
		i.byExternalID[*externalID] = c
	}
}

// retire makes a customer one who is gone.
func (i *customerIndex) retire(c *customer) {
	i.shelf.retire(c)
	i.free(c)
}

// free gives away the e-mail and the external id of a customer.
func (i *customerIndex) free(c *customer) {
	if c.Email != nil && i.findEmail(*c.Email) == c {
		delete(i.byEmail, strings.ToLower(*c.Email))
	}
	i.changeExternalID(c, nil)
}
