package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/google/go-licenses/v2/licenses"
	"k8s.io/klog/v2"
)

// allowed are the licences under which code may go into programs that are Apache-2.0, by the classifier's names, which are SPDX's
// but for those listed in noSPDX. Each asks for its text to go along; NOTICES is that.
var allowed = map[string]bool{
	"Apache-2.0":   true,
	"BSD-2-Clause": true,
	"BSD-3-Clause": true,
	"ISC":          true,
	"MIT":          true,
	"PostgreSQL":   true,
	"XZ":           true, // the author's word that it is in the public domain
	// File by file: what is changed of those files has to be shown. Nothing is: they are taken as published, and the
	// bill of materials says from where.
	"MPL-2.0": true,
}

// noSPDX are names that SPDX has none for.
var noSPDX = map[string]string{"XZ": "public domain (XZ)"}

// license is a text that covers packages of a module.
type license struct {
	module   *debug.Module
	packages string   // what they have in common
	names    []string // sorted
	file     string
}

// programLicenses finds the licences of all that is in programs besides our own, sorted by module. The working directory is the main
// module's.
func programLicenses(ctx context.Context, files ...string) ([]license, error) {
	in := map[string]*debug.Module{}
	var packages, ours []string
	for _, file := range files {
		info, deps, err := modules(file)
		if err != nil {
			return nil, err
		}
		maps.Copy(in, deps)
		packages, ours = append(packages, info.Path), append(ours, info.Main.Path)
	}
	classifier, err := licenses.NewClassifier()
	if err != nil {
		return nil, fmt.Errorf("reading the known licences: %w", err)
	}
	klog.LogToStderr(false) // what it could not read has no licence then, and that is told
	klog.SetOutput(io.Discard)
	libraries, err := licenses.Libraries(ctx, classifier, false, ours, packages...)
	if err != nil {
		return nil, fmt.Errorf("looking for the licences of %s: %w", packages, err)
	}
	found := make([]license, 0, len(libraries))
	covered := map[string]bool{}
	for _, library := range libraries {
		module := moduleOf(in, library.Packages[0])
		if module == nil {
			return nil, fmt.Errorf("%s imports %s, and %s has no module of it: build it anew", packages, library.Packages[0], files)
		}
		covered[module.Path] = true
		one := license{module: module, packages: library.Name(), file: library.LicenseFile}
		for _, l := range library.Licenses {
			one.names = append(one.names, l.Name)
		}
		slices.Sort(one.names)
		found = append(found, one)
	}
	var faults []error
	for path := range in {
		if !covered[path] {
			faults = append(faults, fmt.Errorf("%s has code of %s, for which no licence was looked for: build it anew", files, path))
		}
	}
	slices.SortFunc(found, func(a, b license) int {
		return cmp.Or(strings.Compare(a.module.Path, b.module.Path), strings.Compare(a.file, b.file), strings.Compare(a.packages, b.packages))
	})
	return found, errors.Join(faults...)
}

// moduleOf is the module that has a package: of those that could, the one with the longest path.
func moduleOf(in map[string]*debug.Module, pkg string) *debug.Module {
	for path := pkg; path != "."; path = filepath.ToSlash(filepath.Dir(path)) {
		if module := in[path]; module != nil {
			return module
		}
	}
	return nil
}

// judge says which licences do not allow what is done with the code.
func judge(found []license) error {
	var faults []error
	for _, l := range found {
		if len(l.names) == 0 {
			faults = append(faults, fmt.Errorf("%s %s: no licence that is known: without one nobody may hand it on", l.packages, l.module.Version))
		}
		for _, name := range l.names {
			if !allowed[name] {
				faults = append(faults, fmt.Errorf("%s %s is under %s, which is not among those that were found to go with Apache-2.0", l.packages, l.module.Version, name))
			}
		}
	}
	return errors.Join(faults...)
}

// writeNotices writes the texts of all licences of programs into one file, Go's own for its standard library first.
func writeNotices(ctx context.Context, notices string, programs ...string) error {
	found, err := programLicenses(ctx, programs...)
	if err != nil {
		return err
	}
	if err := judge(found); err != nil {
		return err
	}
	info, _, err := modules(programs[0])
	if err != nil {
		return err
	}
	goRoot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("asking where Go is: %w", err)
	}
	standard := license{
		module: &debug.Module{Path: "the Go standard library", Version: info.GoVersion}, names: []string{"BSD-3-Clause"},
		file: filepath.Join(strings.TrimSpace(string(goRoot)), "LICENSE"),
	}
	var text strings.Builder
	text.WriteString("The programs of truenorth have code of others in them. What those ask to be handed on with it follows.\n" +
		"The source of each is at https://pkg.go.dev/, by the path and the version given here.\n")
	for _, l := range append([]license{standard}, found...) {
		content, err := os.ReadFile(l.file)
		if err != nil {
			return fmt.Errorf("reading the licence of %s: %w", l.module.Path, err)
		}
		fmt.Fprintf(&text, "\n%s\n%s %s: %s\n", strings.Repeat("=", 80), l.module.Path, l.module.Version, strings.Join(l.names, " and "))
		if l.packages != "" && l.packages != l.module.Path {
			fmt.Fprintf(&text, "(%s)\n", l.packages)
		}
		fmt.Fprintf(&text, "\n%s\n", strings.TrimSpace(strings.ReplaceAll(string(content), "\r\n", "\n")))
	}
	if err := os.WriteFile(notices, []byte(text.String()), 0o644); err != nil { //nolint:gosec // it is for everybody
		return fmt.Errorf("writing the notices: %w", err)
	}
	return nil
}
