package main

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
)

// What is between the markers is written by each run of its part; what is around them, by people.
const (
	beginMark = "<!-- measured by make bench: begin -->"
	endMark   = "<!-- measured by make bench: end -->"

	beginLargeMark = "<!-- measured by make bench BENCH='-only large': begin -->"
	endLargeMark   = "<!-- measured by make bench BENCH='-only large': end -->"

	beginLoadMark = "<!-- measured by make load: begin -->"
	endLoadMark   = "<!-- measured by make load: end -->"
)

//go:embed report.md.tmpl
var reportText string

//go:embed large.md.tmpl
var largeText string

//go:embed plans.md.tmpl
var plansText string

//go:embed load.md.tmpl
var loadText string

var (
	report      = reportTemplate("report", reportText)
	largeReport = reportTemplate("large", largeText)
	plansReport = reportTemplate("plans", plansText)
	loadReport  = reportTemplate("load", loadText)
)

func reportTemplate(name, text string) *template.Template {
	return template.Must(template.New(name).Funcs(template.FuncMap{
		"count": count, "number": number, "ms": number, "value": Goal.value, "want": Goal.want, "verdict": Goal.verdict,
		"received": (*Results).received, "ratio": ratio, "cases": cases, "mib": func(bytes int64) string { return count(bytes >> 20) },
		"join": func(list []string) string { return strings.Join(list, ", ") }, "anchor": anchor,
	}).Parse(text))
}

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
	return writeBetween(filepath.Join(dir, "performance.md"), beginMark, endMark, report, r)
}

// publishLarge writes what was found with a large database: into its own part of the report, and the plans beside it.
func publishLarge(dir string, r *Results) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // documentation is for everybody
		return fmt.Errorf("making the report's folder: %w", err)
	}
	numbers, err := json.MarshalIndent(struct {
		Run      RunFacts      `json:"run"`
		Machine  MachineFacts  `json:"machine"`
		Postgres PostgresFacts `json:"postgres"`
		*Large
	}{r.Run, r.Machine, r.Postgres, r.Large}, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the results: %w", err)
	}
	if err := writeFile(filepath.Join(dir, "performance-large.json"), append(numbers, '\n')); err != nil {
		return err
	}
	var text bytes.Buffer
	if err := plansReport.Execute(&text, r); err != nil {
		return fmt.Errorf("writing the plans: %w", err)
	}
	if err := writeFile(filepath.Join(dir, "performance-plans.md"), append(bytes.TrimSpace(text.Bytes()), '\n')); err != nil {
		return err
	}
	return writeBetween(filepath.Join(dir, "performance.md"), beginLargeMark, endLargeMark, largeReport, r)
}

// publishEndured writes what `bench load` found out.
func publishEndured(dir string, r *Endured) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // documentation is for everybody
		return fmt.Errorf("making the report's folder: %w", err)
	}
	numbers, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the results: %w", err)
	}
	if err := writeFile(filepath.Join(dir, "load.json"), append(numbers, '\n')); err != nil {
		return err
	}
	return writeBetween(filepath.Join(dir, "load.md"), beginLoadMark, endLoadMark, loadReport, r)
}

// writeBetween replaces what stands between two marks of a file; a file without them gets them at its end.
func writeBetween(name, begin, end string, form *template.Template, r any) error {
	var text bytes.Buffer
	if err := form.Execute(&text, r); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	old, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		old, err = []byte("# Measured\n"), nil
	}
	if err != nil {
		return fmt.Errorf("reading the old report: %w", err)
	}
	if !bytes.Contains(old, []byte(begin)) && !bytes.Contains(old, []byte(end)) {
		old = append(old, "\n"+begin+"\n"+end+"\n"...)
	}
	before, rest, begun := strings.Cut(string(old), begin)
	_, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		return fmt.Errorf("%s has one of the lines %q and %q, between which the numbers go, without the other behind it", name, begin, end)
	}
	return writeFile(name, []byte(before+begin+"\n\n"+strings.TrimSpace(text.String())+"\n\n"+end+after))
}

// anchor is the fragment that leads to a heading on GitHub.
func anchor(heading string) string {
	var fragment strings.Builder
	for _, c := range strings.ToLower(heading) {
		switch {
		case c == ' ' || c == '-':
			fragment.WriteByte('-')
		case c == '_' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			fragment.WriteRune(c)
		}
	}
	return fragment.String()
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

func (g Goal) value() string {
	if g.Value == math.Trunc(g.Value) {
		return count(g.Value) + " " + g.Unit
	}
	return number(g.Value) + " " + g.Unit
}

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
