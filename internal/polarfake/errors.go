package polarfake

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

var (
	errClosed = errors.New("the fake Polar is closed")
	// errGatewayTimeout is what the gateway before Polar answers, with a page, when Polar takes too long.
	errGatewayTimeout = errors.New("the gateway timed out")
)

// APIError is a refusal as Polar's API words it.
type APIError struct {
	Status   int       // of the HTTP answer
	Name     string    // the class of the error, "ResourceNotFound"
	Detail   string    // for people
	Problems []Problem // take the place of Detail when a request is invalid
}

func (e *APIError) Error() string {
	if len(e.Problems) > 0 {
		return fmt.Sprintf("%d %s: %v: %s", e.Status, e.Name, e.Problems[0].Loc, e.Problems[0].Msg)
	}
	return fmt.Sprintf("%d %s: %s", e.Status, e.Name, e.Detail)
}

// MarshalJSON implements [json.Marshaler]: detail is a string or, for an invalid request, a list.
func (e *APIError) MarshalJSON() ([]byte, error) {
	document := struct {
		Error  string `json:"error"`
		Detail any    `json:"detail"`
	}{Error: e.Name, Detail: e.Detail}
	if len(e.Problems) > 0 {
		document.Detail = e.Problems
	}
	rendered, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("encoding error %s: %w", e.Name, err)
	}
	return rendered, nil
}

// errInvalid refuses a request that does not have the form of its model.
func errInvalid(problems []Problem) *APIError {
	return &APIError{Status: http.StatusUnprocessableEntity, Name: "RequestValidationError", Problems: problems}
}

// errRefused refuses a well-formed request that breaks a rule.
func errRefused(problems []Problem) *APIError {
	return &APIError{Status: http.StatusUnprocessableEntity, Name: "PolarRequestValidationError", Problems: problems}
}

func errUnauthorized() *APIError {
	return &APIError{Status: http.StatusUnauthorized, Name: "Unauthorized", Detail: "Unauthorized"}
}

func errNotFound() *APIError {
	return &APIError{Status: http.StatusNotFound, Name: "ResourceNotFound", Detail: "Not found"}
}

func errNotOpen() *APIError {
	return &APIError{Status: http.StatusForbidden, Name: "NotOpenCheckout", Detail: "This checkout session is not open."}
}

func errExpired() *APIError {
	return &APIError{Status: http.StatusGone, Name: "ExpiredCheckoutError", Detail: "This checkout session has expired."}
}

func errAlreadySubscribed() *APIError {
	return &APIError{
		Status: http.StatusForbidden, Name: "AlreadyActiveSubscriptionError",
		Detail: "You already have an active subscription.",
	}
}

func errCustomerDeleted() *APIError {
	return &APIError{
		Status: http.StatusConflict, Name: "CheckoutCustomerDeleted",
		Detail: "The customer associated with this checkout session has been deleted.",
	}
}

func errExternalIDMismatch() *APIError {
	return &APIError{
		Status: http.StatusUnprocessableEntity, Name: "CheckoutCustomerExternalIdMismatch",
		Detail: "A customer with this external ID already exists but with a different email address.",
	}
}

func errPayment() *APIError {
	return &APIError{Status: http.StatusBadRequest, Name: "PaymentError", Detail: "Your card was declined."}
}
