package main

import (
	"context"
	_ "embed"
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

// facts are what the report says of the run besides its verdict.
type facts struct {
	*verdict

	Date      string
	Seed      uint64
	Length    time.Duration
	Asked     time.Duration // for how long faults were to go on
	Plan      schedule
	Machine   string
	Versions  string
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
func (r *run) report(ctx context.Context, v *verdict) error {
	v.print(r.out)
	page := template.Must(template.New("report").Funcs(reportFuncs).Parse(reportSource))
	f := facts{
		verdict: v, Date: time.Now().UTC().Format(time.DateOnly), Seed: r.seed, Length: r.plan.ends().Round(time.Second), Asked: r.length, Plan: r.plan, Machine: machine(),
		Versions: versions(ctx), LeaderTTL: leaderTTL, Before: releaseBefore[:7],
	}
	if !r.plan.has(faultUpgrade) {
		f.LeftOut = append(f.LeftOut, "the rolling upgrade")
	}
	if !r.plan.has(faultStep, thePrimary, theStandby) {
		f.LeftOut = append(f.LeftOut, "clock steps of a Postgres")
	}
	if !r.plan.has(faultStep, programNames...) {
		f.LeftOut = append(f.LeftOut, "clock steps of our programs")
	}
	targets := []string{filepath.Join(r.dir, "chaos.md")}
	if r.write {
		targets = append(targets, filepath.Join(r.root, "docs", "chaos.md"))
	}
	for _, target := range targets {
		file, err := os.Create(target)
		if err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
		defer file.Close()
		if err := page.Execute(file, f); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
		fmt.Fprintf(r.out, "report: %s\n", target)
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
