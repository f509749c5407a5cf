package main

import (
	"bufio"
	"errors"
	"net"
	neturl "net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// mainVariable makes the test program behave as withpg itself.
const mainVariable = "WITHPG_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainVariable) != "" {
		main()
	}

	os.Exit(m.Run())
}

// withpg prepares withpg as a process of its own.
func withpg(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()

	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), mainVariable+"=1", urlVariable+"=")
	cmd.Stderr = os.Stderr

	return cmd
}

func exitCodeOf(t *testing.T, err error) int {
	t.Helper()

	if err == nil {
		return 0
	}

	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		t.Fatal(err)
	}

	return exit.ExitCode()
}

func TestCommandGetsADatabaseAndItsExitCodeIsPassedOn(t *testing.T) {
	t.Parallel()

	out, err := withpg(t, "--", "sh", "-c", "echo $"+urlVariable+"; exit 7").Output()
	if got := exitCodeOf(t, err); got != 7 {
		t.Errorf("exit code %d, want 7", got)
	}

	if !strings.HasPrefix(string(out), "postgres://postgres:") {
		t.Errorf("%s = %q", urlVariable, out)
	}
}

func TestGivenDatabaseIsUsed(t *testing.T) {
	t.Parallel()

	cmd := withpg(t, "sh", "-c", "echo $"+urlVariable)
	cmd.Env = append(cmd.Env, urlVariable+"=postgres://given")

	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}

	if got := string(out); got != "postgres://given\n" {
		t.Errorf("%s = %q", urlVariable, got)
	}
}

func TestSignalIsPassedOnAndTheServerStopped(t *testing.T) {
	t.Parallel()

	cmd := withpg(t, "--", "sh", "-c", `trap 'exit 3' TERM; echo $`+urlVariable+`; while :; do sleep 0.05; done`)

	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}

	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	url, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}

	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}

	if got := exitCodeOf(t, cmd.Wait()); got != 3 {
		t.Errorf("exit code %d, want 3", got)
	}

	server, err := neturl.Parse(strings.TrimSpace(url))
	if err != nil {
		t.Fatal(err)
	}

	if conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.Host); err == nil {
		_ = conn.Close()
		t.Error("the server still takes connections")
	}
}

func TestCommandEndedByASignalGivesAShellsExitCode(t *testing.T) {
	t.Parallel()

	got := exitCodeOf(t, withpg(t, "--", "sh", "-c", "kill -TERM $$").Run())
	if want := 128 + int(syscall.SIGTERM); got != want {
		t.Errorf("exit code %d, want %d", got, want)
	}
}

func TestMissingCommandIsRefused(t *testing.T) {
	t.Parallel()

	for _, args := range [][]string{nil, {"--"}, {"--", "no-such-command"}} {
		cmd := withpg(t, args...)
		cmd.Stderr = nil

		_, err := cmd.Output()
		if got := exitCodeOf(t, err); got != exitFailed {
			t.Errorf("%v: exit code %d, want %d", args, got, exitFailed)
		}

		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || !strings.Contains(string(exit.Stderr), "withpg:") {
			t.Errorf("%v: no error text", args)
		}
	}
}
