package polar

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// StorableJSON returns a valid JSON text in a form that Postgres takes as
// jsonb. Characters that jsonb has no room for become U+FFFD: NUL, surrogates
// without their other half, and bytes that are no UTF-8. A number that
// Postgres's numeric might not hold, of over 1000 characters or with an
// exponent beyond 1000, becomes a string. All other bytes stay as they are,
// and if all do, raw itself is returned.
func StorableJSON(raw []byte) []byte {
	var (
		stored   []byte // what came before rest, changed; nil while nothing was
		rest     int
		inString bool
	)
	for i := 0; i < len(raw); {
		var (
			end         int
			replacement string // "" for none
		)
		switch c := raw[i]; {
		case c == '\\':
			var r rune
			var size int
			r, size = decodeRune(raw[i:])
			end = i + size
			if r == 0 || r == utf8.RuneError && !bytes.EqualFold(raw[i:end], []byte(`\ufffd`)) {
				replacement = `\ufffd`
			}
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRune(raw[i:])
			end = i + size
			if r == utf8.RuneError && size == 1 {
				replacement = string(utf8.RuneError)
			}
		case !inString && (c == '-' || '0' <= c && c <= '9'):
			number := scanner{body: raw, pos: i}
			number.scanNumber()
			end = max(number.pos, i+1)
			if !fitsNumeric(raw[i:end]) {
				replacement = `"` + string(raw[i:end]) + `"`
			}
		default:
			if c == '"' {
				inString = !inString
			}
			end = i + 1
		}
		if replacement != "" {
			stored = append(append(stored, raw[rest:i]...), replacement...)
			rest = end
		}
		i = end
	}
	if stored == nil {
		return raw
	}
	return append(stored, raw[rest:]...)
}

// fitsNumeric tells whether a JSON number is small enough for Postgres's
// numeric, with a wide margin: numeric takes 131072 digits before the point and
// 16383 after it, and writes an exponent out as zeros.
func fitsNumeric(number []byte) bool {
	const longest, largestExponent = 1000, 1000
	if len(number) > longest {
		return false
	}
	at := bytes.IndexAny(number, "eE")
	if at < 0 {
		return true
	}
	exponent, err := strconv.Atoi(string(number[at+1:]))
	return err == nil && -largestExponent <= exponent && exponent <= largestExponent
}
