package console

import (
	"time"
)

// Names for the tests, which sit outside the package.
var (
	Ago    = ago
	Count  = count
	PayURL = payURL
)

// NewWithPatience is New with another time to wait for a URL, and the token of a form as of a time.
func NewWithPatience(config Config, patience time.Duration) (handler *Console, token func(name string, now time.Time) string, err error) {
	c, err := New(config)
	if err != nil {
		return nil, nil, err
	}
	c.awaitURL = patience
	return c, c.forms.token, nil
}

// Patterns are all routes of a console.
func (c *Console) Patterns() []string { return c.routes.patterns }
