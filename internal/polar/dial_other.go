//go:build !linux

package polar

import (
	"syscall"
	"time"
)

// giveUpAfter can be told to Linux alone.
func giveUpAfter(time.Duration) func(network, address string, conn syscall.RawConn) error { return nil }
