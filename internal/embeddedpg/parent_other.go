//go:build !linux

package embeddedpg

import "syscall"

// dieWithParent does nothing where the system has no such means: the next start finds a server that was left behind.
func dieWithParent(*syscall.SysProcAttr) {}
