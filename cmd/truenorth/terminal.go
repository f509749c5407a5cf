package main

import (
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"
)

// isTerminal reports whether a person looks at what is written to w.
func isTerminal(w any) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// style colours words at a terminal; elsewhere it is false, and leaves them as they are.
type style bool

// styleOf follows no-color.org: no colours where NO_COLOR is set to anything, nor where the terminal has none.
func styleOf(stdout io.Writer, environ []string, json bool) style {
	plain := slices.ContainsFunc(environ, func(v string) bool {
		return strings.HasPrefix(v, "NO_COLOR=") && v != "NO_COLOR=" || v == "TERM=dumb"
	})
	return style(!json && !plain && isTerminal(stdout))
}

// The codes are of one length: where every cell of a column is painted, tabwriter, which counts them, still aligns it.
func (s style) good(text string) string { return s.paint("32", text) } // green
func (s style) warn(text string) string { return s.paint("33", text) } // yellow
func (s style) bad(text string) string  { return s.paint("31", text) } // red
func (s style) none(text string) string { return s.paint("39", text) } // as it is

func (s style) paint(code, text string) string {
	if !s {
		return text
	}
	return "\033[" + code + "m" + text + "\033[0m"
}
