package polar

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	// SignatureTolerance is how far the timestamp of a delivery may be from
	// our clock, in both directions and inclusive. Polar signs each attempt
	// anew, so retries and redeliveries are always fresh.
	SignatureTolerance = 5 * time.Minute

	maxWebhookIDLen = 256 // bytes; Polar's own ids are UUIDs
	maxSignatures   = 16  // Polar sends one; each costs a comparison

	secretPrefix      = "whsec_"
	standardSecretLen = 32 // bytes of key in a secret that Polar generates
)

// Reasons of a [SignatureError]. They are stable, and short enough to be a
// metric's label.
const (
	SignatureMissingHeaders = "missing_headers"
	SignatureMalformed      = "malformed"
	SignatureNoMatch        = "no_match"
	SignatureTooOld         = "too_old"
	SignatureTooNew         = "too_new"
)

// SignatureError says why a delivery was not accepted as Polar's. It holds
// nothing of the delivery's content and nothing of a secret.
type SignatureError struct {
	Reason string // one of the Signature… constants

	detail string
}

func (e *SignatureError) Error() string {
	return "verifying webhook signature: " + e.detail
}

// Verifier checks the signatures of deliveries. It is safe for concurrent use.
type Verifier struct {
	webhooks []*standardwebhooks.Webhook // one for each key
	latest   atomic.Int64                // which of them verified the last delivery, and most likely verifies the next
	now      func() time.Time
}

// NewVerifier returns a Verifier that accepts what is signed with any of the
// secrets, as Polar shows them; white space around a secret is not part of it.
//
// A secret does not tell how Polar makes the key of it: endpoints made before
// 2026-09-08, and secrets chosen by the merchant, sign with the bytes of the
// whole secret, newer ones with what the base64 after "whsec_" stands for.
// So both keys are tried for each secret.
func NewVerifier(secrets []string) (*Verifier, error) {
	if len(secrets) == 0 {
		return nil, errors.New("POLAR_WEBHOOK_SECRETS holds no secret: set it to the secret of Polar's webhook endpoint")
	}
	verifier := &Verifier{now: time.Now}
	for i, secret := range secrets {
		secret, err := checkSecret(secret)
		if err != nil {
			return nil, fmt.Errorf("POLAR_WEBHOOK_SECRETS: secret %d of %d %w", i+1, len(secrets), err)
		}
		keys := [][]byte{[]byte(secret)}
		if key := standardKey(secret); len(key) > 0 { // an empty key would verify for everybody
			keys = append(keys, key)
		}
		for _, key := range keys {
			webhook, err := standardwebhooks.NewWebhookRaw(key)
			if err != nil {
				return nil, fmt.Errorf("POLAR_WEBHOOK_SECRETS: using secret %d of %d: %w", i+1, len(secrets), err)
			}
			verifier.webhooks = append(verifier.webhooks, webhook)
		}
	}
	return verifier, nil
}

// WithClock returns a copy of the Verifier that takes the time from now.
func (v *Verifier) WithClock(now func() time.Time) *Verifier {
	return &Verifier{webhooks: v.webhooks, now: now}
}

// Verify checks that body was signed by Polar within the last five minutes.
// An error is always a *[SignatureError]. It is the caller's task to limit the
// size of body, which is read whole for each key.
//
// The standard-webhooks library does the cryptography, and is given only
// headers in the one form that Polar sends: it reads just the first line of a
// repeated header, takes timestamps such as "+001787389200", and compares
// with the real clock only, for which reason the window is checked here.
func (v *Verifier) Verify(body []byte, h http.Header) error {
	id, err := soleHeader(h, standardwebhooks.HeaderWebhookID)
	if err != nil {
		return err
	}
	timestamp, err := soleHeader(h, standardwebhooks.HeaderWebhookTimestamp)
	if err != nil {
		return err
	}
	lines := strings.Join(h.Values(standardwebhooks.HeaderWebhookSignature), " ")
	signatures := strings.FieldsFunc(lines, func(r rune) bool { return r == ' ' })
	if len(signatures) == 0 {
		return &SignatureError{SignatureMissingHeaders, "header webhook-signature is missing"}
	}
	if len(signatures) > maxSignatures {
		return malformed("header webhook-signature holds over %d signatures", maxSignatures)
	}
	if !validWebhookID(id) {
		return malformed("header webhook-id is not 1 to %d printable ASCII characters", maxWebhookIDLen)
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || seconds < 0 || strconv.FormatInt(seconds, 10) != timestamp {
		return malformed("header webhook-timestamp is not a whole number of seconds since 1970")
	}
	if err := v.checkAge(seconds); err != nil {
		return err
	}

	canonical := make(http.Header, 3)
	canonical.Set(standardwebhooks.HeaderWebhookID, id)
	canonical.Set(standardwebhooks.HeaderWebhookTimestamp, timestamp)
	canonical.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	first := int(v.latest.Load())
	for i := range v.webhooks {
		k := (first + i) % len(v.webhooks)
		if v.webhooks[k].VerifyIgnoringTimestamp(body, canonical) == nil {
			if i > 0 {
				v.latest.Store(int64(k))
			}
			return nil
		}
	}
	return &SignatureError{SignatureNoMatch, "no signature matches any secret of POLAR_WEBHOOK_SECRETS"}
}

func (v *Verifier) checkAge(seconds int64) error {
	// Years of five digits would overflow the arithmetic of time.Time.
	const lastSecond = 253402300799 // of the year 9999
	now := v.now()
	at := time.Unix(min(seconds, lastSecond), 0)
	if age := now.Sub(at); age > SignatureTolerance {
		return &SignatureError{SignatureTooOld, fmt.Sprintf("signed %v ago, over %v: a replay, or our clock is fast", age.Round(time.Second), SignatureTolerance)}
	}
	if ahead := at.Sub(now); ahead > SignatureTolerance {
		return &SignatureError{SignatureTooNew, fmt.Sprintf("signed %v ahead of our clock, over %v", ahead.Round(time.Second), SignatureTolerance)}
	}
	return nil
}

// soleHeader returns the value of a header that has to be there once: which of
// two would be the signed one is anybody's guess.
func soleHeader(h http.Header, name string) (string, error) {
	values := h.Values(name)
	switch {
	case len(values) == 0 || len(values) == 1 && values[0] == "":
		return "", &SignatureError{SignatureMissingHeaders, "header " + name + " is missing"}
	case len(values) > 1:
		return "", malformed("header %s is there %d times", name, len(values))
	}
	return values[0], nil
}

func malformed(format string, args ...any) *SignatureError {
	return &SignatureError{SignatureMalformed, fmt.Sprintf(format, args...)}
}

func validWebhookID(id string) bool {
	if id == "" || len(id) > maxWebhookIDLen {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

// Derivation says how the key of a signature is made of the secret.
type Derivation int

const (
	// DerivationAuto is what Polar most likely does for the secret: standard
	// if it is "whsec_" and the base64 of 32 bytes, else legacy.
	DerivationAuto Derivation = iota
	// DerivationLegacy takes the bytes of the whole secret.
	DerivationLegacy
	// DerivationStandard decodes the base64 after "whsec_".
	DerivationStandard
)

// Sign returns the three headers with which Polar would send body at the given
// time: webhook-id, webhook-timestamp and webhook-signature.
func Sign(secret, webhookID string, at time.Time, body []byte, derivation Derivation) (http.Header, error) {
	secret, err := checkSecret(secret)
	if err != nil {
		return nil, fmt.Errorf("signing webhook: the secret %w", err)
	}
	if !validWebhookID(webhookID) {
		return nil, fmt.Errorf("signing webhook: webhook id %q is not 1 to %d printable ASCII characters", webhookID, maxWebhookIDLen)
	}
	if derivation == DerivationAuto {
		derivation = DerivationLegacy
		if strings.HasPrefix(secret, secretPrefix) && len(standardKey(secret)) == standardSecretLen {
			derivation = DerivationStandard
		}
	}
	key := []byte(secret)
	if derivation == DerivationStandard {
		key = standardKey(secret)
		if len(key) == 0 {
			return nil, errors.New("signing webhook: the secret has no standard key, as it is not base64 after whsec_: sign with the legacy derivation")
		}
	}
	webhook, err := standardwebhooks.NewWebhookRaw(key)
	if err != nil {
		return nil, fmt.Errorf("signing webhook: %w", err)
	}
	signature, err := webhook.Sign(webhookID, at, body)
	if err != nil {
		return nil, fmt.Errorf("signing webhook: %w", err)
	}
	h := make(http.Header, 3)
	h.Set(standardwebhooks.HeaderWebhookID, webhookID)
	h.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10))
	h.Set(standardwebhooks.HeaderWebhookSignature, signature)
	return h, nil
}

// checkSecret returns the secret without white space around it. Its errors
// complete a sentence that begins with which secret it is, and never show it.
func checkSecret(secret string) (string, error) {
	secret = strings.TrimSpace(secret)
	switch {
	case secret == "":
		return "", errors.New("is empty")
	case secret == secretPrefix:
		return "", errors.New("is only the prefix whsec_, without the secret itself")
	case strings.ContainsFunc(secret, unicode.IsControl):
		return "", errors.New("holds a control character, such as a line break: separate secrets by a comma")
	}
	return secret, nil
}

// standardKey returns the key of a secret by the Standard Webhooks
// specification, nil if it has none.
func standardKey(secret string) []byte {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
	if err != nil {
		return nil
	}
	return key
}
