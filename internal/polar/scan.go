package polar

import (
	"bytes"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// expectation is what the grammar of JSON allows next.
type expectation int

const (
	expectValue expectation = iota
	expectValueOrEnd
	expectName
	expectNameOrEnd
	expectSeparator // after a value: a comma, or the end of what holds it
)

// memberName tells which member of the event a value belongs to.
type memberName int

const (
	otherMember memberName = iota
	typeMember
	timestampMember
	dataMember
	dataIDMember
)

// scanner checks a JSON text in one pass and notes the members that make an
// [Envelope]. The kinds of the open containers are kept as bits, so nothing is
// allocated before a depth of 2048, and a MiB of brackets needs 128 KiB.
type scanner struct {
	body []byte
	pos  int

	depth   int        // of open containers
	objects [32]uint64 // bit d is set: the container at depth d+1 is an object
	deeper  []uint64   // the same for depths that objects has no room for

	// Strings are as written, between the quotes; nil: missing, or no string.
	typ, timestamp, id []byte
	data               []byte
	dataStart          int
	dataOpen           bool // within data, which is an object or an array

	hasType                                   bool
	hasContent, hasEmbeds, hasText, hasBlocks bool // what chat messages have
}

// scan scans the whole text. If it returns false, pos is where the text stops
// being JSON.
func (s *scanner) scan() bool {
	next, member := expectValue, otherMember
	for {
		s.skipSpace()
		if s.pos == len(s.body) {
			return s.depth == 0 && next == expectSeparator
		}
		c := s.body[s.pos]
		switch {
		case next == expectSeparator:
			switch {
			case c == ',' && s.depth > 0:
				s.pos++
				next = expectValue
				if s.inObject() {
					next = expectName
				}
			case c == '}' && s.depth > 0 && s.inObject(), c == ']' && s.depth > 0 && !s.inObject():
				s.closeContainer()
			default:
				return false
			}

		case next == expectNameOrEnd && c == '}', next == expectValueOrEnd && c == ']':
			s.closeContainer()
			next = expectSeparator

		case next == expectName || next == expectNameOrEnd:
			name, ok := s.scanString()
			if !ok {
				return false
			}
			s.skipSpace()
			if s.pos == len(s.body) || s.body[s.pos] != ':' {
				return false
			}
			s.pos++
			member = s.enterMember(name)
			next = expectValue

		case c == '{' || c == '[':
			if member == dataMember {
				s.dataOpen, s.dataStart = true, s.pos
			}
			s.openContainer(c == '{')
			next, member = expectValueOrEnd, otherMember
			if c == '{' {
				next = expectNameOrEnd
			}

		default:
			if !s.scanScalar(c, member) {
				return false
			}
			next, member = expectSeparator, otherMember
		}
	}
}

// enterMember tells which member has this name, and forgets the value that an
// earlier one of the same name had: the last counts.
func (s *scanner) enterMember(name []byte) memberName {
	switch {
	case s.depth == 1:
		return s.enterTopMember(name)
	case s.depth == 2 && s.dataOpen && nameIs(name, "id"):
		s.id = nil
		return dataIDMember
	}
	return otherMember
}

func (s *scanner) enterTopMember(name []byte) memberName {
	switch {
	case nameIs(name, "type"):
		s.typ, s.hasType = nil, true
		return typeMember
	case nameIs(name, "timestamp"):
		s.timestamp = nil
		return timestampMember
	case nameIs(name, "data"):
		s.data, s.id = nil, nil
		return dataMember
	case nameIs(name, "content"):
		s.hasContent = true
	case nameIs(name, "embeds"):
		s.hasEmbeds = true
	case nameIs(name, "text"):
		s.hasText = true
	case nameIs(name, "blocks"):
		s.hasBlocks = true
	}
	return otherMember
}

// openContainer enters the object or array that begins at pos.
func (s *scanner) openContainer(isObject bool) {
	word, bit := s.depth/64, uint64(1)<<(s.depth%64)
	if word >= len(s.objects)+len(s.deeper) {
		s.deeper = append(s.deeper, 0)
	}
	kinds := s.objects[:]
	if word >= len(kinds) {
		word -= len(kinds)
		kinds = s.deeper
	}
	if isObject {
		kinds[word] |= bit
	} else {
		kinds[word] &^= bit
	}
	s.depth++
	s.pos++
}

// closeContainer leaves the innermost container, which ends at pos.
func (s *scanner) closeContainer() {
	s.depth--
	s.pos++
	if s.depth == 1 && s.dataOpen {
		s.data, s.dataOpen = s.body[s.dataStart:s.pos], false
	}
}

// inObject tells whether the innermost open container is an object.
func (s *scanner) inObject() bool {
	word, bit := (s.depth-1)/64, uint64(1)<<((s.depth-1)%64)
	if word < len(s.objects) {
		return s.objects[word]&bit != 0
	}
	return s.deeper[word-len(s.objects)]&bit != 0
}

// scanScalar scans the string, number or literal that begins with c, as the
// value of the member.
func (s *scanner) scanScalar(c byte, member memberName) bool {
	start := s.pos
	switch c {
	case '"':
		text, ok := s.scanString()
		if !ok {
			return false
		}
		switch member {
		case typeMember:
			s.typ = text
		case timestampMember:
			s.timestamp = text
		case dataIDMember:
			s.id = text
		case otherMember, dataMember:
		}
	case 't':
		if !s.scanWord("true") {
			return false
		}
	case 'f':
		if !s.scanWord("false") {
			return false
		}
	case 'n':
		if !s.scanWord("null") {
			return false
		}
	default:
		if !s.scanNumber() {
			return false
		}
	}
	if member == dataMember {
		s.data = s.body[start:s.pos]
	}
	return true
}

func (s *scanner) skipSpace() {
	for s.pos < len(s.body) {
		switch s.body[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// scanString returns what is between the quotes of the string at pos. Bytes
// that are no UTF-8 are let through, as Polar may send them.
func (s *scanner) scanString() ([]byte, bool) {
	if s.body[s.pos] != '"' {
		return nil, false
	}
	s.pos++
	start := s.pos
	for s.pos < len(s.body) {
		switch c := s.body[s.pos]; {
		case c == '"':
			s.pos++
			return s.body[start : s.pos-1], true
		case c == '\\':
			s.pos++
			if !s.scanEscape() {
				return nil, false
			}
		case c < ' ':
			return nil, false
		default:
			s.pos++
		}
	}
	return nil, false
}

// scanEscape scans what follows a backslash.
func (s *scanner) scanEscape() bool {
	if s.pos == len(s.body) {
		return false
	}
	switch s.body[s.pos] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos++
		return true
	case 'u':
		s.pos++
		for range 4 {
			if s.pos == len(s.body) || !isHex(s.body[s.pos]) {
				return false
			}
			s.pos++
		}
		return true
	}
	return false
}

func (s *scanner) scanWord(word string) bool {
	for i := range len(word) {
		if s.pos == len(s.body) || s.body[s.pos] != word[i] {
			return false
		}
		s.pos++
	}
	return true
}

func (s *scanner) scanNumber() bool {
	s.skipByte("-")
	if !s.skipByte("0") && !s.skipDigits() {
		return false
	}
	if s.skipByte(".") && !s.skipDigits() {
		return false
	}
	if s.skipByte("eE") {
		s.skipByte("+-")
		return s.skipDigits()
	}
	return true
}

// skipByte steps over a byte that is one of those in set.
func (s *scanner) skipByte(set string) bool {
	if s.pos == len(s.body) {
		return false
	}
	for i := range len(set) {
		if s.body[s.pos] == set[i] {
			s.pos++
			return true
		}
	}
	return false
}

// skipDigits steps over digits, and tells whether there was one.
func (s *scanner) skipDigits() bool {
	start := s.pos
	for s.pos < len(s.body) && '0' <= s.body[s.pos] && s.body[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

// nameIs tells whether the name of a member, as written, means want, which is
// ASCII.
func nameIs(name []byte, want string) bool {
	if bytes.IndexByte(name, '\\') < 0 {
		return string(name) == want
	}
	for len(name) > 0 && want != "" {
		r, size := decodeRune(name)
		if r != rune(want[0]) {
			return false
		}
		name, want = name[size:], want[1:]
	}
	return len(name) == 0 && want == ""
}

// decodeText returns the meaning of a valid JSON string, given as written
// between its quotes, as text that Postgres can store: what is no character,
// and NUL, becomes U+FFFD. It stops before the rune with which it would have
// over limit bytes.
func decodeText(text []byte, limit int) string {
	if len(text) <= limit && bytes.IndexByte(text, '\\') < 0 && utf8.Valid(text) {
		return string(text)
	}
	decoded := make([]byte, 0, min(len(text), limit))
	for len(text) > 0 {
		r, size := decodeRune(text)
		if r == 0 {
			r = utf8.RuneError
		}
		if len(decoded)+utf8.RuneLen(r) > limit {
			break
		}
		decoded = utf8.AppendRune(decoded, r)
		text = text[size:]
	}
	return string(decoded)
}

// decodeRune returns the first rune of a valid JSON string, and how many bytes
// it takes as written. A lone surrogate, and a byte that is no UTF-8, is
// U+FFFD.
func decodeRune(text []byte) (rune, int) {
	if text[0] != '\\' {
		return utf8.DecodeRune(text)
	}
	if len(text) < 2 || text[1] == 'u' && len(text) < 6 {
		return utf8.RuneError, len(text) // not JSON
	}
	switch c := text[1]; c {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r := hexRune(text[2:6])
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		if len(text) >= 12 && text[6] == '\\' && text[7] == 'u' {
			if pair := utf16.DecodeRune(r, hexRune(text[8:12])); pair != utf8.RuneError {
				return pair, 12
			}
		}
		return utf8.RuneError, 6
	default: // a quote, a backslash or a slash
		return rune(c), 2
	}
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// hexRune returns the value of four hexadecimal digits.
func hexRune(digits []byte) rune {
	var r rune
	for _, c := range digits {
		switch {
		case c <= '9':
			r = r<<4 | rune(c-'0')
		default:
			r = r<<4 | rune(c|0x20-'a'+10)
		}
	}
	return r
}

// decodeTime reads a time of RFC 3339, given as written in a JSON string. It
// returns the zero time for anything else, and for years that are not 1 to
// 9999 in UTC.
func decodeTime(text []byte) time.Time {
	const longest = 64 // a time with nanoseconds and an offset has 35
	if bytes.IndexByte(text, '\\') >= 0 {
		text = []byte(decodeText(text, longest))
	}
	if len(text) == 0 || len(text) > longest {
		return time.Time{}
	}
	var t time.Time
	if err := t.UnmarshalText(text); err != nil {
		return time.Time{}
	}
	t = t.UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}
