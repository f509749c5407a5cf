package main

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
)

// What is between the markers is written by each run; what is around them, by people.
const (
	beginMark = "<!-- measured by make bench: begin -->"
	endMark   = "<!-- measured by make bench: end -->"
)

//go:embed report.md.tmpl
var reportText string

var report = template.Must(template.New("report").Funcs(template.FuncMap{
	"count": count, "number": number, "ms": number, "value": Goal.value, "want": Goal.want, "verdict": Goal.verdict,
	"received": (*Results).received, "ratio": ratio, "cases": cases,
}).Parse(reportText))

// publish writes the report, its numbers and its plots.
func publish(dir string, r *Results) error {
	plots := filepath.Join(dir, "performance")
	if err := os.MkdirAll(plots, 0o755); err != nil { //nolint:gosec // documentation is for everybody
		return fmt.Errorf("making the report's folder: %w", err)
	}
	numbers, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the results: %w", err)
	}
	if err := writeFile(filepath.Join(dir, "performance.json"), append(numbers, '\n')); err != nil {
		return err
	}
	if err := drawAll(plots, r); err != nil {
		return err
	}
	var text bytes.Buffer
	if err := report.Execute(&text, r); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	name := filepath.Join(dir, "performance.md")
	old, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		old, err = []byte("# Performance\n\n"+beginMark+"\n"+endMark+"\n"), nil
	}
	if err != nil {
		return fmt.Errorf("reading the old report: %w", err)
	}
	before, rest, begun := strings.Cut(string(old), beginMark)
	_, after, ended := strings.Cut(rest, endMark)
	if !begun || !ended {
		return fmt.Errorf("%s lacks the lines %q and %q between which the numbers go", name, beginMark, endMark)
	}
	return writeFile(name, []byte(before+beginMark+"\n\n"+strings.TrimSpace(text.String())+"\n\n"+endMark+after))
}

func writeFile(name string, content []byte) error {
	if err := os.WriteFile(name, content, 0o644); err != nil { //nolint:gosec // documentation is for everybody
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// count writes a whole number with commas between thousands.
func count(n any) string {
	var digits string
	switch n := n.(type) {
	case float64:
		digits = strconv.FormatFloat(n, 'f', 0, 64)
	default:
		digits = fmt.Sprint(n)
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// number writes about three digits.
func number(n float64) string {
	switch {
	case n >= 1000:
		return count(n)
	case n >= 100:
		return strconv.FormatFloat(n, 'f', 0, 64)
	case n >= 10:
		return strconv.FormatFloat(n, 'f', 1, 64)
	}
	return strconv.FormatFloat(n, 'f', 2, 64)
}

func ratio(a, b float64) string {
	if b == 0 {
		return "–"
	}
	return strconv.FormatFloat(a/b, 'f', 2, 64)
}

func (g Goal) value() string { return number(g.Value) + " " + g.Unit }

func (g Goal) want() string {
	word := "≥ "
	if g.AtMost {
		word = "≤ "
	}
	text := word + strconv.FormatFloat(g.Want, 'g', -1, 64) + " " + g.Unit
	if g.Aim != 0 {
		text += fmt.Sprintf(" (aim %g)", g.Aim)
	}
	return text
}

func (g Goal) verdict() string {
	if g.Reached {
		return "reached"
	}
	return "**missed**"
}

// receivedCase is one case of receiving, with each subject's numbers.
type receivedCase struct{ Baseline, Verify, Ours *Received }

// cases are those of receiving, each once.
func cases(r *Results) []receivedCase {
	var list []receivedCase
	for _, s := range r.Receive {
		if s.Subject == "truenorth" {
			list = append(list, receivedCase{
				Baseline: cmp.Or(r.received("baseline", s.Connections, s.BodyBytes), &Received{}),
				Verify:   cmp.Or(r.received("verify", s.Connections, s.BodyBytes), &Received{}),
				Ours:     r.received("truenorth", s.Connections, s.BodyBytes),
			})
		}
	}
	return list
}
