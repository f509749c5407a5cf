// Command supply judges what is handed out: that the programs are static and come out the same wherever they are built, that their
// bills of materials are complete, and that the licences of what is in them allow it. The Makefile calls it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
)

const usage = `Usage:
  supply static PROGRAM...          each needs no interpreter and no library of the machine
  supply equal DIR OTHER            both hold the same files, byte for byte
  supply bill BOM PROGRAM           write the licences into a CycloneDX document, and hold it against the program and ./go.mod
  supply licenses NOTICES PROGRAM...
                                    check the licences of what is in the programs, and write the texts that have to go with them`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "supply:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	wrong := fmt.Errorf("not understood: %q\n%s", args, usage)
	if len(args) < 2 {
		return wrong
	}
	command, args := args[0], args[1:]
	switch {
	case command == "static":
		var faults []error
		for _, file := range args {
			faults = append(faults, checkStatic(file))
		}
		return errors.Join(faults...)
	case command == "equal" && len(args) == 2:
		return checkEqual(args[0], args[1])
	case command == "bill" && len(args) == 2:
		return fillBill(ctx, args[0], args[1], "go.mod")
	case command == "licenses" && len(args) > 1:
		return writeNotices(ctx, args[0], args[1:]...)
	}
	return wrong
}
