package main

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"unicode"
)

// painted finds what style paints with, which is all that may reach a terminal beside text.
var painted = regexp.MustCompile("\033\\[(?:3[1239]|0)m")

// shown is text fit for a terminal. Names, addresses and errors come from buyers and from Polar, and a terminal takes orders
// out of them: to move, to hide what stands there, to write the clipboard. In place of each such character stands U+FFFD.
func shown(text string) string {
	var b strings.Builder
	end := 0
	for _, at := range painted.FindAllStringIndex(text, -1) {
		b.WriteString(harmless(text[end:at[0]]))
		b.WriteString(text[at[0]:at[1]])
		end = at[1]
	}
	b.WriteString(harmless(text[end:]))
	return b.String()
}

func harmless(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// oneLine is a value that others wrote, for a line of ours: it breaks into no line, column or colour of its own, which would look
// like what truenorth itself says.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// printShown prints text as a person is shown it.
func printShown(w io.Writer, text func(io.Writer) error) error {
	var whole bytes.Buffer
	if err := text(&whole); err != nil {
		return err
	}
	_, err := io.WriteString(w, shown(whole.String()))
	return err //nolint:wrapcheck // it says itself what could not be written
}
