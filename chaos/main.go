// Command chaos runs truenorth on several hosts, breaks them, and judges what it promises. `make chaos` runs it; --help lists
// its flags. See docs/chaos.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// Exit codes beside 0: everything was kept, or the machine does not allow a run and that was said.
const (
	exitBroken = 1
	exitUsage  = 2
)

func main() { os.Exit(mainCode(os.Args[1:])) }

// mainCode runs the program and returns its exit code.
func mainCode(args []string) int {
	stage := ""
	if len(args) > 0 && (args[0] == stageInit || args[0] == stageRun) {
		stage, args = args[0], args[1:]
	}
	var code int
	var err error
	switch stage {
	case stageInit:
		code, err = beInit(args)
	default:
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		var o options
		if o, err = readOptions(args, os.Stderr); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return 0
			}
			return exitUsage
		}
		switch {
		case stage == stageRun:
			code, err = runInside(ctx, o)
		case o.judge != "":
			code, err = judgeAgain(o)
		default:
			code, err = runOutside(ctx, o)
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "chaos: %v\n", err)
		return exitBroken
	}
	return code
}

// leftOut says that nothing was run, in words that .ci/run looks for.
func leftOut(why error) int {
	fmt.Printf("left out, so nothing is proved: %v\n", why)
	return 0
}

// runOutside builds what is needed, enters the namespaces, and writes the report where that is asked for.
func runOutside(ctx context.Context, o options) (int, error) {
	if missing := missingTools(); len(missing) > 0 {
		return leftOut(fmt.Errorf("missing: apt-get install %s", strings.Join(missing, " "))), nil
	}
	if _, err := findPostgres(); err != nil {
		return leftOut(err), nil
	}
	if err := allowed(); err != nil {
		return leftOut(err), nil
	}
	var err error
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "truenorth-chaos-"); err != nil {
			return 0, fmt.Errorf("making the folder of the run: %w", err)
		}
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return 0, fmt.Errorf("finding the folder of the run: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(o.dir, "logs"), 0o755); err != nil { //nolint:gosec // another user runs Postgres in it
		return 0, fmt.Errorf("making the folder of the run: %w", err)
	}
	if err := os.Chmod(o.dir, 0o755); err != nil { //nolint:gosec // another user runs Postgres in it
		return 0, fmt.Errorf("opening the folder of the run: %w", err)
	}
	fmt.Printf("the run's folder, with logs and all that happened: %s\n", o.dir)
	plan, err := o.chooseSchedule(ctx)
	if err != nil {
		return 0, err
	}
	build := buildRelease
	if plan.has(faultStep, programNames...) {
		build = buildSteppedRelease
	}
	if err := build(ctx, o.root, string((&run{options: o}).current())); err != nil {
		return 0, err
	}
	file, err := os.Create(o.scheduleFile())
	if err != nil {
		return 0, fmt.Errorf("writing the schedule: %w", err)
	}
	plan.write(io.MultiWriter(file, os.Stdout))
	if err := file.Close(); err != nil {
		return 0, fmt.Errorf("writing the schedule: %w", err)
	}
	fmt.Printf("play exactly this again: make chaos CHAOS=\"--seed %d --schedule %s\"\n", o.seed, o.scheduleFile())
	return enter(ctx, o.inside())
}

// judgeAgain judges a run from what it left.
func judgeAgain(o options) (int, error) {
	o.dir = o.judge
	e, err := readEvidence(o.dir)
	if err != nil {
		return 0, err
	}
	return o.conclude(e)
}

// conclude judges, reports and says how it is.
func (o options) conclude(e *evidence) (int, error) {
	v := judge(e)
	if err := errors.Join(writeJSON(filepath.Join(o.dir, "verdict.json"), v), o.report(e, v)); err != nil {
		return 0, err
	}
	if v.broken() {
		fmt.Printf("a promise was BROKEN; logs, history and evidence: %s\n", o.dir)
		return exitBroken, nil
	}
	fmt.Println("every promise was kept")
	return 0, nil
}

// runInside plays, judges and reports.
func runInside(ctx context.Context, o options) (int, error) {
	file, err := os.Open(o.schedule)
	if err != nil {
		return 0, fmt.Errorf("opening the schedule: %w", err)
	}
	defer file.Close()
	plan, err := readSchedule(file)
	if err != nil {
		return 0, err
	}
	log, err := os.Create(filepath.Join(o.dir, "logs", "polar.log"))
	if err != nil {
		return 0, fmt.Errorf("making the log of the fake Polar: %w", err)
	}
	defer log.Close()
	r := &run{options: o, plan: plan, out: os.Stdout, logger: slog.New(slog.NewTextHandler(log, nil))}
	e, err := r.perform(ctx)
	if ctx.Err() != nil {
		return 0, errors.New("told to end, so nothing is judged")
	}
	if err != nil {
		return 0, fmt.Errorf("the run itself failed, so nothing is judged: %w; logs: %s", err, filepath.Join(o.dir, "logs"))
	}
	return o.conclude(e)
}
