package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"text/template"
	"time"
)

//go:embed report.md.tmpl
var reportSource string

// reportFuncs are what the page needs besides.
var reportFuncs = template.FuncMap{
	"number": func(i int) int { return i + 1 },
	"names":  sortedKeys[int64],
	"first":  func(list []string) []string { return list[:min(10, len(list))] },
}

// facts are what the report says of a run besides its verdict.
type facts struct {
	Date     string        `json:"date"`
	Seed     uint64        `json:"seed"`
	Asked    time.Duration `json:"asked"` // for how long faults were to go on
	Machine  string        `json:"machine"`
	Versions string        `json:"versions"`
}

// facts are those of this run.
func (r *run) facts(ctx context.Context) facts {
	return facts{
		Date: time.Now().UTC().Format(time.DateOnly), Seed: r.seed, Asked: r.length, Machine: machine(), Versions: versions(ctx),
	}
}

// page is what the report is made of.
type page struct {
	*verdict
	facts

	Length    time.Duration
	LeftOut   []string
	LeaderTTL int
	Before    string
}

// print tells the verdict.
func (v *verdict) print(w io.Writer) {
	for i, p := range v.Promises {
		if len(p.Broken) == 0 {
			fmt.Fprintf(w, "KEPT    %d. %s\n", i+1, p.Text)
			continue
		}
		fmt.Fprintf(w, "BROKEN  %d. %s: %d times\n", i+1, p.Text, len(p.Broken))
		const shown = 15
		for _, why := range p.Broken[:min(shown, len(p.Broken))] {
			fmt.Fprintf(w, "        %s\n", why)
		}
	}
	for _, o := range v.Outages {
		fmt.Fprintf(w, "fault %-2d %-36s longest silence %5.1f s; Postgres whole after %5.1f s, then deliveries in %4.1f s, pages in %4.1f s", o.Fault, o.What, o.Silence, o.Whole, o.Back, o.Pages)
		if o.Primary != "" {
			fmt.Fprintf(w, ", %s the primary after %.1f s", o.Primary, o.Changed)
		}
		fmt.Fprintln(w)
	}
	n := v.Counts
	fmt.Fprintf(w, "%d deliveries: %d acknowledged (%d events), %d refused with 503, %d unanswered, the slowest answer %d ms\n",
		n.Deliveries, n.Accepted, n.Distinct, n.Refused, n.Unanswered, n.SlowestMS)
	fmt.Fprintf(w, "%d checkout requests; %d links; %d fail-overs; %d forgeries refused\n", n.Requests, n.Links, n.Failovers, n.Forged)
}

// report prints the verdict, writes it as a page into the run's folder, and publishes that where it was asked for.
func (o options) report(e *evidence, v *verdict) error {
	v.print(os.Stdout)
	p := page{verdict: v, facts: e.Run, Length: e.Plan.ends().Round(time.Second), LeaderTTL: leaderTTL, Before: releaseBefore[:7]}
	if !e.Plan.has(faultUpgrade) {
		p.LeftOut = append(p.LeftOut, "the rolling upgrade")
	}
	if !e.Plan.has(faultStep, thePrimary, theStandby) {
		p.LeftOut = append(p.LeftOut, "clock steps of a Postgres")
	}
	if !e.Plan.has(faultStep, programNames...) {
		p.LeftOut = append(p.LeftOut, "clock steps of our programs")
	}
	text := template.Must(template.New("report").Funcs(reportFuncs).Parse(reportSource))
	targets := []string{filepath.Join(o.dir, "chaos.md")}
	if o.write {
		targets = append(targets, filepath.Join(o.root, "docs", "chaos.md"))
	}
	for _, target := range targets {
		file, err := os.Create(target)
		if err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
		if err := errors.Join(text.Execute(file, p), file.Close()); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
		fmt.Printf("report: %s\n", target)
	}
	return nil
}

// machine says where it ran.
func machine() string {
	cpu, kernel := "unknown processor", "unknown"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if found := regexp.MustCompile(`(?m)^model name\s*: (.+)$`).FindSubmatch(text); found != nil {
			cpu = string(found[1])
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = strings.TrimSpace(string(text))
	}
	return fmt.Sprintf("%s, %d cores, Linux %s, Go %s", cpu, runtime.NumCPU(), kernel, strings.TrimPrefix(runtime.Version(), "go"))
}

// versions are those of the programs around ours.
func versions(ctx context.Context) string {
	var list []string
	pgBin, err := findPostgres()
	if err != nil {
		return err.Error() // the run would not have begun
	}
	for _, command := range [][]string{{filepath.Join(pgBin, "postgres"), "--version"}, {"patroni", "--version"}, {"etcd", "--version"}} {
		if out, err := exec.CommandContext(ctx, command[0], command[1:]...).Output(); err == nil {
			line, _, _ := strings.Cut(string(out), "\n")
			list = append(list, line)
		}
	}
	return strings.Join(list, ", ")
}
