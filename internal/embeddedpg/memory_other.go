//go:build !linux

package embeddedpg

// memoryRoot is "" where the system has no folder in memory of its own.
func memoryRoot() string { return "" }
