package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// program is one that notes each of its starts in a file and then does what the script says.
func program(t *testing.T, script string) (p *process, starts func() int, ended chan string) {
	t.Helper()
	dir := t.TempDir()
	ended = make(chan string, 10)
	p = &process{
		name: "program", host: &host{name: nameApp}, argv: []string{"/bin/sh", "-c", "echo started >> " + filepath.Join(dir, "starts") + "; " + script},
		log: filepath.Join(dir, "log"), ended: func(_ *process, why string) { ended <- why },
	}
	t.Cleanup(p.kill)
	return p, func() int {
		text, err := os.ReadFile(filepath.Join(dir, "starts"))
		if err != nil {
			return 0
		}
		return strings.Count(string(text), "started")
	}, ended
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline, ticker := time.Now().Add(20*time.Second), time.NewTicker(10*time.Millisecond)
	defer ticker.Stop()
	for !so() {
		if time.Now().After(deadline) {
			t.Fatal("not within 20 s: " + what)
		}
		<-ticker.C
	}
}

func TestAProgramThatEndsByItselfIsToldOfAndStartedAgain(t *testing.T) {
	t.Parallel()

	p, starts, ended := program(t, "exit 3")
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	if why := <-ended; why != "exit status 3" {
		t.Errorf("it ended with %q", why)
	}
	eventually(t, "it is started again", func() bool { return starts() >= 2 })
	text, err := os.ReadFile(p.log)
	if err != nil || !strings.Contains(string(text), "start 1 of /bin/sh") {
		t.Errorf("its log is %q, %v", text, err)
	}
}

func TestAKilledProgramStaysDownUntilItIsStarted(t *testing.T) {
	t.Parallel()

	p, starts, ended := program(t, "exec sleep 600")
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs", func() bool { return starts() == 1 && p.pid() > 0 && residentBytes(p.pid()) > 0 })
	p.kill()
	if p.pid() != 0 {
		t.Error("it runs, and was killed")
	}
	select {
	case why := <-ended:
		t.Errorf("it is said to have ended by itself: %s", why)
	case <-time.After(2 * restartPause):
	}
	if n := starts(); n != 1 {
		t.Errorf("it was started %d times, and was to stay down", n)
	}
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs again", func() bool { return starts() == 2 })
	p.stop()
	if p.pid() != 0 {
		t.Error("it runs, and was asked to end")
	}
}
