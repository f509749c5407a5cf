// Withpg runs a command with a PostgreSQL server of its own:
//
//	go run ./internal/embeddedpg/withpg -- go test ./...
//
// The command finds the server in TRUENORTH_TEST_DATABASE_URL, as a superuser. The server and its data are gone when
// the command ends. Withpg ends with the command's exit code, and passes signals on to it. Where the variable is set
// already, that server is used and none is started. TRUENORTH_PG_BIN names the folder of PostgreSQL's programs.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/truenorth-dev/truenorth/internal/embeddedpg"
)

const (
	urlVariable = "TRUENORTH_TEST_DATABASE_URL"

	// exitFailed is the exit code when the command could not be run at all, as a shell has it.
	exitFailed = 127

	// exitSignal is added to the number of the signal that ended the command, as a shell does.
	exitSignal = 128
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "withpg:", err)
	}

	os.Exit(code)
}

func run(args []string) (int, error) {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}

	if len(args) == 0 {
		return exitFailed, errors.New("no command given: withpg -- COMMAND [ARGUMENT...]")
	}

	// Before the server starts: a signal in between must not leave it running.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)

	if os.Getenv(urlVariable) != "" {
		return runCommand(args, os.Environ(), signals)
	}

	server, err := startServer(signals)
	if err != nil {
		return exitFailed, err
	}

	code, err := runCommand(args, append(os.Environ(), urlVariable+"="+server.URL()), signals)

	return code, errors.Join(err, server.Stop())
}

// startServer starts the server, and gives up at a signal.
func startServer(signals <-chan os.Signal) (*embeddedpg.Server, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	started := make(chan struct{})
	defer close(started)

	go func() {
		select {
		case <-signals:
			cancel()
		case <-started:
		}
	}()

	return embeddedpg.Start(ctx, embeddedpg.Options{
		BinDir: os.Getenv("TRUENORTH_PG_BIN"),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Settings: map[string]string{
			// Every package's tests run at once, each with pools of its own.
			"max_connections": "400",
			"shared_buffers":  "128MB",
		},
	})
}

// runCommand runs the command in a process group of its own and passes signals on to the group, so that each signal
// arrives once, whether a terminal sent it or a process.
func runCommand(args, env []string, signals <-chan os.Signal) (int, error) {
	cmd := exec.Command(args[0], args[1:]...) //nolint:gosec,noctx // running the given command is the purpose, and signals end it
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}

	if err := cmd.Start(); err != nil {
		return exitFailed, fmt.Errorf("starting the command: %w", err)
	}

	ended := make(chan error, 1)

	go func() { ended <- cmd.Wait() }()

	for {
		select {
		case sig := <-signals:
			if s, ok := sig.(syscall.Signal); ok {
				// An error means that the command has just ended.
				_ = syscall.Kill(-cmd.Process.Pid, s)
			}
		case err := <-ended:
			return exitCode(cmd.ProcessState, err)
		}
	}
}

func exitCode(state *os.ProcessState, err error) (int, error) {
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		return exitFailed, fmt.Errorf("running the command: %w", err)
	}

	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitSignal + int(status.Signal()), nil
	}

	return state.ExitCode(), nil
}
