package main

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
)

// checkStatic wants a program that starts on any Linux, an empty container's too, and that says nothing of where it was built.
func checkStatic(file string) error {
	program, err := elf.Open(file)
	if err != nil {
		return fmt.Errorf("%s: reading it as a program of Linux: %w", file, err)
	}
	defer func() { _ = program.Close() }()
	var faults []error
	if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		faults = append(faults, fmt.Errorf("%s asks for an interpreter, so it is not static", file))
	}
	libraries, err := program.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("%s: reading which libraries it needs: %w", file, err)
	}
	if len(libraries) > 0 {
		faults = append(faults, fmt.Errorf("%s needs %q of the machine, so it is not static", file, libraries))
	}
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return errors.Join(append(faults, fmt.Errorf("%s: reading what it was built of: %w", file, err))...)
	}
	for name, want := range map[string]string{"CGO_ENABLED": "0", "-trimpath": "true"} {
		if !slices.Contains(info.Settings, debug.BuildSetting{Key: name, Value: want}) {
			faults = append(faults, fmt.Errorf("%s was not built with %s=%s", file, name, want))
		}
	}
	return errors.Join(faults...)
}

// checkEqual compares two folders of programs.
func checkEqual(a, b string) error {
	names, err := programs(a)
	if err != nil {
		return err
	}
	others, err := programs(b)
	if err != nil {
		return err
	}
	if len(names) == 0 || !slices.Equal(names, others) {
		return fmt.Errorf("%s holds %q, %s holds %q: want the same programs, one at least", a, names, b, others)
	}
	var faults []error
	for _, name := range names {
		one, errA := os.ReadFile(filepath.Join(a, name))
		other, errB := os.ReadFile(filepath.Join(b, name))
		if err := errors.Join(errA, errB); err != nil {
			return fmt.Errorf("reading a program to compare: %w", err)
		}
		if !bytes.Equal(one, other) {
			faults = append(faults, fmt.Errorf("%s: %d bytes in %s and %d in %s, and they differ", name, len(one), a, len(other), b))
		}
	}
	return errors.Join(faults...)
}

func programs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading a folder of programs: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, nil
}

// modules are those whose code is in a program, by path; not the program's own, which the build information names.
func modules(file string) (*buildinfo.BuildInfo, map[string]*debug.Module, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: reading what it was built of: %w", file, err)
	}
	in := map[string]*debug.Module{}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		in[module.Path] = module
	}
	return info, in, nil
}
