package console

import (
	"strconv"
	"time"

	"github.com/truenorth-dev/truenorth/internal/store"
)

// payURL is the URL while a buyer can pay there, and empty otherwise.
func payURL(state, url string, expiresAt *time.Time, now time.Time) string {
	if state != store.RequestOpen || expiresAt == nil || !now.Before(*expiresAt) {
		return ""
	}
	return url
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
