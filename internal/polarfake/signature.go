package polarfake

import (
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// SignatureScheme is how the key of a signature is derived from an endpoint's secret.
type SignatureScheme string

// The schemes. Polar chooses by the moment the secret was generated; the fake goes by its form.
const (
	// SchemeByForm is the zero value: see [SchemeOf].
	SchemeByForm SignatureScheme = ""
	// SchemeLegacy takes the bytes of the whole secret, prefix included. Secrets from before 2026-09-08, and those
	// that a merchant chose.
	SchemeLegacy SignatureScheme = "legacy"
	// SchemeStandard takes the base64-decoded part after whsec_, as Standard Webhooks has it.
	SchemeStandard SignatureScheme = "standard"
)

const (
	secretPrefix   = "whsec_"
	secretKeyBytes = 32
)

// SchemeOf returns the scheme that a secret's form speaks for: standard for whsec_ and the base64 of 32 bytes,
// legacy for all else.
func SchemeOf(secret string) SignatureScheme {
	encoded, found := strings.CutPrefix(secret, secretPrefix)
	if key, err := base64.StdEncoding.DecodeString(encoded); found && err == nil && len(key) == secretKeyBytes {
		return SchemeStandard
	}
	return SchemeLegacy
}

// Sign returns the value of the webhook-signature header.
func Sign(secret string, scheme SignatureScheme, webhookID string, at time.Time, body []byte) (string, error) {
	if scheme == SchemeByForm {
		scheme = SchemeOf(secret)
	}
	derive := func() (*standardwebhooks.Webhook, error) { return standardwebhooks.NewWebhookRaw([]byte(secret)) }
	if scheme == SchemeStandard {
		derive = func() (*standardwebhooks.Webhook, error) { return standardwebhooks.NewWebhook(secret) }
	}
	signer, err := derive()
	if err != nil {
		return "", fmt.Errorf("deriving the %s key of an endpoint secret: %w", scheme, err)
	}
	signature, err := signer.Sign(webhookID, at, body)
	if err != nil {
		return "", fmt.Errorf("signing webhook %s: %w", webhookID, err)
	}
	return signature, nil
}
