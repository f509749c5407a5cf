package testbuild

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// watched is what the program in testdata says.
type watched struct {
	Wall                               time.Time
	Elapsed, DeadlineAfter, ReadGaveUp time.Duration
}

func (w watched) off() time.Duration { return time.Until(w.Wall).Round(time.Minute) }

func TestTheWallClockStepsAndTimersGoOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := Build(t.Context(), "../..", dir, "./internal/testbuild/testdata/watch"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "clock")
	step := func(by string) {
		if err := os.WriteFile(file, []byte(by), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	step("-25h30m\n") // also before it starts
	program := exec.CommandContext(t.Context(), filepath.Join(dir, "watch"))
	program.Env = append(os.Environ(), "TRUENORTH_CLOCK_FILE="+file)
	output, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	lines := json.NewDecoder(output)
	until := func(what string, ok func(watched) bool) watched {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; {
			var line watched
			if err := lines.Decode(&line); err != nil {
				t.Fatal(err)
			}
			if ok(line) {
				return line
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s did not come: %+v", what, line)
			}
		}
	}
	if first := until("a line", func(watched) bool { return true }); first.off() != -25*time.Hour-30*time.Minute {
		t.Errorf("it started %s off, want -25h30m", first.off())
	}
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		step(by.String())
		until("a step by "+by.String(), func(w watched) bool { return w.off() == by })
	}
	step("") // as somebody is just writing
	last := until("the deadlines' end", func(w watched) bool { return w.DeadlineAfter > 0 && w.ReadGaveUp > 0 })
	if last.off() != -time.Hour {
		t.Errorf("an empty file took back the step: %s off", last.off())
	}
	if last.DeadlineAfter < time.Second || last.DeadlineAfter > 5*time.Second {
		t.Errorf("a context's deadline of 1 s came after %s, though only the wall clock was stepped", last.DeadlineAfter)
	}
	if last.ReadGaveUp < time.Second || last.ReadGaveUp > 5*time.Second {
		t.Errorf("a read's deadline of 1 s came after %s, though only the wall clock was stepped", last.ReadGaveUp)
	}
	if passed := time.Since(started); last.Elapsed > passed {
		t.Errorf("it measured %s, in %s of real time", last.Elapsed, passed)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	until("the clock's right time", func(w watched) bool { return w.off() == 0 })
	_ = program.Process.Kill()
	_ = program.Wait()
}

func TestAFileThatSaysNoDurationIsNotTakenForARightClock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := Build(t.Context(), "../..", dir, "./internal/testbuild/testdata/watch"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "clock")
	if err := os.WriteFile(file, []byte("an hour"), 0o600); err != nil {
		t.Fatal(err)
	}
	program := exec.CommandContext(t.Context(), filepath.Join(dir, "watch"))
	program.Env = append(os.Environ(), "TRUENORTH_CLOCK_FILE="+file)
	output, err := program.CombinedOutput()
	if err == nil || !strings.Contains(string(output), file+" holds no duration") {
		t.Errorf("it ended with %v and said\n%s", err, output)
	}
}

func TestAnotherToolchainIsRefusedWithWhatIsMissing(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"another beginning": "package time\n\nfunc Now() Time {\n\tsec, nsec := walltime()\n",
		"two":               now + "}\n" + now + "}\n",
	} {
		_, err := patch([]byte(text))
		if err == nil || !strings.Contains(err.Error(), "change internal/testbuild") || !strings.Contains(err.Error(), "runtimeNow()") {
			t.Errorf("%s: got %v, want an error that says what was looked for", name, err)
		}
	}
}
