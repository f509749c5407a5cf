package console

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/currency"

	"github.com/truenorth-dev/truenorth/internal/store"
)

// payURL is the URL while a buyer can pay there, and empty otherwise.
func payURL(state, hosted string, expiresAt *time.Time, now time.Time) string {
	if state != store.RequestOpen || expiresAt == nil || !now.Before(*expiresAt) || !isWebURL(hosted) {
		return ""
	}
	return hosted
}

// isWebURL keeps out what a browser would run instead of opening it.
func isWebURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
}

// ago is a time as a person reads it.
func ago(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case d <= -time.Minute:
		return "in " + roughly(-d)
	case d < time.Minute:
		return "just now"
	case d < 30*24*time.Hour:
		return roughly(d) + " ago"
	}
	return t.UTC().Format("2 Jan 2006")
}

// roughly is a duration of a minute or more in its greatest unit.
func roughly(d time.Duration) string {
	switch {
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h"
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + " days"
}

// count writes a number with a comma after each thousand.
func count(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return count(n) + " " + what + "s"
}

// duration is a number of seconds as a person reads it; below zero there is none.
func duration(seconds float64) string {
	switch {
	case seconds < 0:
		return "–"
	case seconds < 0.0995:
		return strconv.FormatFloat(seconds*1000, 'f', 1, 64) + " ms"
	case seconds < 0.9995:
		return strconv.FormatFloat(seconds*1000, 'f', 0, 64) + " ms"
	case seconds < 120:
		return strconv.FormatFloat(seconds, 'f', 1, 64) + " s"
	}
	return roughly(time.Duration(seconds * float64(time.Second)))
}

// money is an amount in the smallest unit of a currency, which is a code of ISO 4217 in any case.
func money(amount int64, code string) string {
	if code == "" {
		return "–"
	}
	digits := 2
	if unit, err := currency.ParseISO(strings.ToUpper(code)); err == nil {
		digits, _ = currency.Standard.Rounding(unit)
	}
	sign := ""
	if amount < 0 {
		sign = "-"
	}
	whole := strings.TrimPrefix(strconv.FormatInt(amount, 10), "-")
	if pad := digits + 1 - len(whole); pad > 0 {
		whole = strings.Repeat("0", pad) + whole
	}
	if digits > 0 {
		whole = whole[:len(whole)-digits] + "." + whole[len(whole)-digits:]
	}
	return sign + whole + " " + strings.ToUpper(code)
}

// value is a column's value, or what tells that there is none.
func value(s *string) string {
	if s == nil {
		return "nothing"
	}
	return *s
}

// causeSays explains a cause of drift.
func causeSays(cause string) string {
	switch cause {
	case "missed_create", "missed_update", "missed_delete":
		return "Polar's event of it never came."
	case "endpoint_disabled":
		return "It happened while Polar's endpoint was out of order, so no event of it was sent."
	case "stale_apply":
		return "The event is stored but not applied: look at the failed events."
	case "local_only":
		return "Polar knows no such object."
	case "altered":
		return "The version is the same, but its content is not: somebody wrote into the mirror, or Polar changed it in silence."
	case "refused":
		return "Postgres refuses the document, so it cannot be stored."
	case "duplicate_session":
		return "A second session of one checkout request, which truenorth does not make: the oldest is kept. It is over once the second one has expired."
	case "benign_abandoned":
		return "A checkout that its buyer left. Nobody has to do anything."
	}
	return ""
}

// kindSays explains a kind of conflict.
func kindSays(kind string) string {
	switch kind {
	case "email_match":
		return "An older customer was matched by an e-mail address that somebody typed. That proves nothing about who typed it."
	case "evidence_disagrees":
		return "The customer's checkout, its external id or its present link name different users."
	case "user_claimed":
		return "The user is linked to another customer already."
	case "external_id_taken":
		return "Polar refused to write the user's id to the customer, since another customer bears it."
	case "unlinked":
		return "A person ended the link between the two, and it stays ended."
	}
	return ""
}
