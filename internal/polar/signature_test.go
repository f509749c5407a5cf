package polar

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/truenorth-dev/truenorth/internal/polartest"
)

const (
	legacySecret   = "whsec_ovyN6cPrTv56AApvzCaJno08SSmGJmgbWilb33N2JuK"
	standardSecret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	testWebhookID  = "0b8a2f0e-6c1d-4a55-9c0e-2b5a3d1f7e11"
)

var (
	testTime = time.Date(2026, 8, 22, 9, 0, 0, 0, time.UTC)
	testBody = []byte(`{"type":"customer.created","data":{}}`)
)

func testVerifier(tb testing.TB, secrets ...string) *Verifier {
	tb.Helper()
	verifier, err := NewVerifier(secrets)
	if err != nil {
		tb.Fatalf("NewVerifier: %v", err)
	}
	return verifier.WithClock(func() time.Time { return testTime })
}

func testSign(tb testing.TB, secret string, derivation Derivation) http.Header {
	tb.Helper()
	h, err := Sign(secret, testWebhookID, testTime, testBody, derivation)
	if err != nil {
		tb.Fatalf("Sign: %v", err)
	}
	return h
}

func wantReason(tb testing.TB, err error, reason string) {
	tb.Helper()
	if reason == "" {
		if err != nil {
			tb.Errorf("Verify: %v, want nil", err)
		}
		return
	}
	signatureErr, ok := errors.AsType[*SignatureError](err)
	if !ok || signatureErr.Reason != reason {
		tb.Errorf("Verify: %v, want reason %q", err, reason)
	}
}

func TestVectorsOfEverySecretFormVerify(t *testing.T) {
	t.Parallel()
	var vectors []struct {
		Label, Secret, Body string
		KeyHex              string `json:"key_hex"`
		WebhookID           string `json:"webhook_id"`
		WebhookTimestamp    string `json:"webhook_timestamp"`
		WebhookSignature    string `json:"webhook_signature"`
	}
	if err := json.Unmarshal(polartest.Read(t, "signature-vectors.json"), &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) != 5 {
		t.Fatalf("%d vectors, want 5", len(vectors))
	}
	var all []string
	for _, vector := range vectors {
		all = append(all, vector.Secret)
	}
	for _, vector := range vectors {
		t.Run(vector.Label, func(t *testing.T) {
			t.Parallel()
			seconds, err := strconv.ParseInt(vector.WebhookTimestamp, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			at := time.Unix(seconds, 0)
			h := http.Header{}
			h.Set("webhook-id", vector.WebhookID)
			h.Set("webhook-timestamp", vector.WebhookTimestamp)
			h.Set("webhook-signature", vector.WebhookSignature)
			for _, secrets := range [][]string{{vector.Secret}, all, {" " + vector.Secret + "\n"}} {
				verifier := testVerifier(t, secrets...).WithClock(func() time.Time { return at })
				wantReason(t, verifier.Verify([]byte(vector.Body), h), "")
				wantReason(t, verifier.Verify([]byte(vector.Body+" "), h), SignatureNoMatch)
			}
			signed, err := Sign(vector.Secret, vector.WebhookID, at, []byte(vector.Body), DerivationAuto)
			if err != nil {
				t.Fatal(err)
			}
			if !maps.EqualFunc(signed, h, slices.Equal) {
				t.Errorf("Sign: %v, want %v", signed, h)
			}
			if !slices.ContainsFunc(verificationKeys(vector.Secret), func(key []byte) bool {
				return hex.EncodeToString(key) == vector.KeyHex
			}) {
				t.Errorf("no key of the secret is %s", vector.KeyHex)
			}
		})
	}
}

func TestEachSecretIsTriedWithBothDerivations(t *testing.T) {
	t.Parallel()
	// Each of these decodes as base64, so each has two keys.
	secrets := []string{standardSecret, "6f3c8ce2247c493a8ade20bea4484d64"}
	verifier := testVerifier(t, secrets...)
	for _, secret := range secrets {
		for _, derivation := range []Derivation{DerivationLegacy, DerivationStandard} {
			wantReason(t, verifier.Verify(testBody, testSign(t, secret, derivation)), "")
		}
	}
	wantReason(t, verifier.Verify(testBody, testSign(t, legacySecret, DerivationAuto)), SignatureNoMatch)
}

func TestSecretsThatCannotVerifyAreRefused(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		secrets []string
		want    string // a part of the error
	}{
		"none":           {nil, "holds no secret"},
		"empty":          {[]string{""}, "secret 1 of 1 is empty"},
		"white space":    {[]string{legacySecret, " \t\r\n"}, "secret 2 of 2 is empty"},
		"prefix alone":   {[]string{"whsec_", legacySecret}, "secret 1 of 2 is only the prefix"},
		"prefix, spaces": {[]string{legacySecret, " whsec_ "}, "secret 2 of 2 is only the prefix"},
		"two in a line":  {[]string{legacySecret + "\n" + standardSecret}, "control character"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := NewVerifier(test.secrets)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "POLAR_WEBHOOK_SECRETS") {
				t.Fatalf("NewVerifier: %v, want an error about POLAR_WEBHOOK_SECRETS with %q", err, test.want)
			}
			for _, secret := range []string{"ovyN6", "AAECA"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error shows a secret: %v", err)
				}
			}
		})
	}
}

func TestEmptyKeyVerifiesNobody(t *testing.T) {
	t.Parallel()
	// To the library, the empty key is as good as any.
	webhook, err := standardwebhooks.NewWebhookRaw(nil)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := webhook.Sign(testWebhookID, testTime, testBody)
	if err != nil {
		t.Fatal(err)
	}
	h := testSign(t, legacySecret, DerivationLegacy)
	h.Set("webhook-signature", forged)
	for _, secret := range []string{legacySecret, standardSecret, "whsec_====", "whsec_!", "===="} {
		wantReason(t, testVerifier(t, secret).Verify(testBody, h), SignatureNoMatch)
	}
}

func TestHeadersAreJudgedStrictly(t *testing.T) {
	t.Parallel()
	const other = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	valid := testSign(t, legacySecret, DerivationLegacy)
	signature := valid.Get("webhook-signature")
	timestamp := valid.Get("webhook-timestamp")
	tests := map[string]struct {
		header string
		values []string
		want   string
	}{
		"no id":                          {"Webhook-Id", nil, SignatureMissingHeaders},
		"empty id":                       {"Webhook-Id", []string{""}, SignatureMissingHeaders},
		"id twice":                       {"Webhook-Id", []string{testWebhookID, testWebhookID}, SignatureMalformed},
		"id with a space":                {"Webhook-Id", []string{"a b"}, SignatureMalformed},
		"id with a control character":    {"Webhook-Id", []string{"a\x00"}, SignatureMalformed},
		"id beyond ASCII":                {"Webhook-Id", []string{"é"}, SignatureMalformed},
		"id too long":                    {"Webhook-Id", []string{strings.Repeat("a", 257)}, SignatureMalformed},
		"another id":                     {"Webhook-Id", []string{strings.Repeat("a", 256)}, SignatureNoMatch},
		"no timestamp":                   {"Webhook-Timestamp", nil, SignatureMissingHeaders},
		"timestamp twice":                {"Webhook-Timestamp", []string{timestamp, timestamp}, SignatureMalformed},
		"timestamp with plus and zeros":  {"Webhook-Timestamp", []string{"+00" + timestamp}, SignatureMalformed},
		"timestamp with a plus":          {"Webhook-Timestamp", []string{"+" + timestamp}, SignatureMalformed},
		"timestamp with zeros":           {"Webhook-Timestamp", []string{"00" + timestamp}, SignatureMalformed},
		"timestamp with letters":         {"Webhook-Timestamp", []string{timestamp + "abc"}, SignatureMalformed},
		"timestamp with a space":         {"Webhook-Timestamp", []string{" " + timestamp}, SignatureMalformed},
		"timestamp as float":             {"Webhook-Timestamp", []string{timestamp + ".0"}, SignatureMalformed},
		"timestamp with exponent":        {"Webhook-Timestamp", []string{"1e9"}, SignatureMalformed},
		"timestamp with underscore":      {"Webhook-Timestamp", []string{"1_787389200"}, SignatureMalformed},
		"timestamp below zero":           {"Webhook-Timestamp", []string{"-1"}, SignatureMalformed},
		"timestamp minus zero":           {"Webhook-Timestamp", []string{"-0"}, SignatureMalformed},
		"timestamp in hex":               {"Webhook-Timestamp", []string{"0x6a895dd0"}, SignatureMalformed},
		"timestamp in other digits":      {"Webhook-Timestamp", []string{"١٧٨٧٣٨٩٢٠٠"}, SignatureMalformed},
		"timestamp zero":                 {"Webhook-Timestamp", []string{"0"}, SignatureTooOld},
		"timestamp of the largest int":   {"Webhook-Timestamp", []string{"9223372036854775807"}, SignatureTooNew},
		"timestamp beyond the largest":   {"Webhook-Timestamp", []string{"9223372036854775808"}, SignatureMalformed},
		"another timestamp":              {"Webhook-Timestamp", []string{strconv.FormatInt(testTime.Unix()+1, 10)}, SignatureNoMatch},
		"no signature":                   {"Webhook-Signature", nil, SignatureMissingHeaders},
		"blank signatures":               {"Webhook-Signature", []string{"", " "}, SignatureMissingHeaders},
		"signature without version":      {"Webhook-Signature", []string{strings.TrimPrefix(signature, "v1,")}, SignatureNoMatch},
		"signature of another version":   {"Webhook-Signature", []string{"v1a" + strings.TrimPrefix(signature, "v1")}, SignatureNoMatch},
		"wrong signature":                {"Webhook-Signature", []string{other}, SignatureNoMatch},
		"empty v1":                       {"Webhook-Signature", []string{"v1,"}, SignatureNoMatch},
		"right one last in a line":       {"Webhook-Signature", []string{other + " v1a,x " + signature}, ""},
		"right one in the second line":   {"Webhook-Signature", []string{other, signature}, ""},
		"right one in the first line":    {"Webhook-Signature", []string{signature, other}, ""},
		"right one between double space": {"Webhook-Signature", []string{other + "  " + signature + " "}, ""},
		"right one as the sixteenth":     {"Webhook-Signature", []string{strings.Repeat(other+" ", 15) + signature}, ""},
		"right one as the seventeenth":   {"Webhook-Signature", []string{strings.Repeat(other+" ", 16) + signature}, SignatureMalformed},
		"too many over several lines":    {"Webhook-Signature", slices.Repeat([]string{signature}, 17), SignatureMalformed},
	}
	verifier := testVerifier(t, standardSecret, legacySecret)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := valid.Clone()
			h[test.header] = test.values
			err := verifier.Verify(testBody, h)
			wantReason(t, err, test.want)
			if err != nil && (strings.Contains(err.Error(), "ovyN6") || strings.ContainsAny(err.Error(), "\n\x00")) {
				t.Errorf("the error shows what it should not: %q", err)
			}
		})
	}
}

func TestWindowIsFiveMinutesBothWaysInclusive(t *testing.T) {
	t.Parallel()
	h := testSign(t, legacySecret, DerivationLegacy)
	tests := map[string]struct {
		ahead time.Duration // of our clock
		want  string
	}{
		"same":             {0, ""},
		"old to the edge":  {5 * time.Minute, ""},
		"old past it":      {5*time.Minute + 1, SignatureTooOld},
		"new to the edge":  {-5 * time.Minute, ""},
		"new past it":      {-5*time.Minute - 1, SignatureTooNew},
		"a day old":        {24 * time.Hour, SignatureTooOld},
		"a century to new": {-100 * 365 * 24 * time.Hour, SignatureTooNew},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			verifier := testVerifier(t, legacySecret).WithClock(func() time.Time { return testTime.Add(test.ahead) })
			wantReason(t, verifier.Verify(testBody, h), test.want)
		})
	}
}

func TestDeliveryOfThisMomentVerifiesByTheRealClock(t *testing.T) {
	t.Parallel()
	verifier, err := NewVerifier([]string{standardSecret})
	if err != nil {
		t.Fatal(err)
	}
	h, err := Sign(standardSecret, testWebhookID, time.Now(), testBody, DerivationAuto)
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, verifier.Verify(testBody, h), "")
}

func TestSignRefusesWhatCannotVerify(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		secret, id string
		derivation Derivation
	}{
		"empty secret":              {"", testWebhookID, DerivationAuto},
		"prefix alone":              {"whsec_", testWebhookID, DerivationLegacy},
		"no standard key":           {legacySecret, testWebhookID, DerivationStandard},
		"empty id":                  {legacySecret, "", DerivationAuto},
		"id that is not one header": {legacySecret, "a\r\nb: c", DerivationAuto},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if h, err := Sign(test.secret, test.id, testTime, testBody, test.derivation); err == nil {
				t.Errorf("Sign: %v, want an error", h)
			} else if strings.Contains(err.Error(), "ovyN6") {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

// verificationKeys makes the keys of a secret without the code under test.
func verificationKeys(secret string) [][]byte {
	keys := [][]byte{[]byte(secret)}
	if key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_")); err == nil && len(key) > 0 {
		keys = append(keys, key)
	}
	return keys
}

// FuzzVerify compares with the library: whatever the secret, the headers and the age, a delivery is accepted only if every
// header stands there once, the library accepts its signature by a key of the secret, and it is of the last five minutes.
// Of what is well formed and fresh, nothing is refused that the library accepts.
func FuzzVerify(f *testing.F) {
	valid := testSign(f, legacySecret, DerivationLegacy)
	timestamp := valid.Get("webhook-timestamp")
	// signer: 0 and 1 sign with a key of the secret's, 2 with another key, beyond nobody signs. line is a second line of the
	// header that copied names: none, id, timestamp, signature.
	f.Add(legacySecret, testBody, testWebhookID, timestamp, valid.Get("webhook-signature"), uint8(0), uint8(0), "", int64(0))
	f.Add(standardSecret, testBody, testWebhookID, "+00"+timestamp, "v1,a v1,b", uint8(1), uint8(0), "", int64(0))
	f.Add(standardSecret, testBody, testWebhookID, timestamp, "", uint8(1), uint8(1), "other", int64(300_000_000_000))
	f.Add(standardSecret, testBody, testWebhookID, timestamp, "v2,x", uint8(0), uint8(2), timestamp, int64(300_000_000_001))
	f.Add(legacySecret, testBody, testWebhookID, timestamp, "", uint8(0), uint8(3), "v1,x v1a,y", int64(-300_000_000_001))
	f.Add(legacySecret, testBody, testWebhookID, timestamp, "", uint8(0), uint8(0), "", int64(300_000_000_001))
	f.Add(legacySecret, testBody, testWebhookID, timestamp, "", uint8(2), uint8(0), "", int64(0))
	f.Add("x", []byte{}, "", "", "", uint8(9), uint8(0), "", int64(0))
	f.Fuzz(func(t *testing.T, secret string, body []byte, id, timestamp, signatures string, signer, copied uint8, line string, ahead int64) {
		verifier, err := NewVerifier([]string{secret})
		if err != nil {
			return
		}
		now := testTime.Add(time.Duration(ahead))
		verifier = verifier.WithClock(func() time.Time { return now })
		keys := verificationKeys(strings.TrimSpace(secret))
		seconds, timeErr := strconv.ParseInt(timestamp, 10, 64)
		if signer < 3 && timeErr == nil {
			key := append([]byte("another"), keys[0]...)
			if signer < 2 {
				key = keys[int(signer)%len(keys)]
			}
			signed, err := standardwebhookOf(t, key).Sign(id, time.Unix(seconds, 0), body)
			if err != nil {
				t.Fatal(err)
			}
			signatures += " " + signed
		}
		h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {signatures}}
		name := []string{"", "Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"}[copied%4]
		if name != "" {
			h[name] = append(h[name], line)
		}
		joined := h.Clone() // the library reads the first line only, and the signatures may stand in several
		joined.Set("Webhook-Signature", strings.Join(h["Webhook-Signature"], " "))
		byLibrary := false
		for _, key := range keys {
			byLibrary = byLibrary || standardwebhookOf(t, key).VerifyIgnoringTimestamp(body, joined) == nil
		}
		once := name == "" || name == "Webhook-Signature"
		fresh := timeErr == nil && seconds >= 0 && seconds < 1<<40 && now.Sub(time.Unix(seconds, 0)).Abs() <= SignatureTolerance

		err = verifier.Verify(bytes.Clone(body), h)
		if err == nil && (!byLibrary || !once || !fresh) {
			t.Fatalf("accepted %v: by the library %t, every header once %t, fresh %t", h, byLibrary, once, fresh)
		}
		if err == nil {
			return
		}
		signatureErr, ok := errors.AsType[*SignatureError](err)
		if !ok {
			t.Fatalf("an error of type %T: %v", err, err)
		}
		if text := err.Error(); strings.ContainsAny(text, "\r\n\x00\x1b") || len(text) > 300 {
			t.Fatalf("not one short line: %q", text)
		}
		switch signatureErr.Reason {
		case SignatureNoMatch:
			if byLibrary {
				t.Fatalf("no match, but the library accepts %v", h)
			}
		case SignatureTooOld, SignatureTooNew:
			if fresh {
				t.Fatalf("%v, but %v is fresh at %v", err, h, now)
			}
		case SignatureMissingHeaders, SignatureMalformed:
			if wellFormed := once && validWebhookID(id) && strconv.FormatInt(seconds, 10) == timestamp && seconds >= 0; wellFormed && len(strings.Fields(joined.Get("Webhook-Signature"))) <= maxSignatures && byLibrary {
				t.Fatalf("%v, but %v is well formed and the library accepts it", err, h)
			}
		default:
			t.Fatalf("an unknown reason: %q", signatureErr.Reason)
		}
	})
}

func standardwebhookOf(t *testing.T, key []byte) *standardwebhooks.Webhook {
	t.Helper()
	webhook, err := standardwebhooks.NewWebhookRaw(key)
	if err != nil {
		t.Fatal(err)
	}
	return webhook
}

func BenchmarkVerify(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 8<<10)
	for _, secret := range []string{legacySecret, standardSecret} {
		h, err := Sign(secret, testWebhookID, testTime, body, DerivationAuto)
		if err != nil {
			b.Fatal(err)
		}
		verifier := testVerifier(b, secret)
		b.Run(map[string]string{legacySecret: "legacy", standardSecret: "standard"}[secret], func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if err := verifier.Verify(body, h); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
