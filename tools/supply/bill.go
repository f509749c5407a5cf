package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
	"golang.org/x/mod/modfile"
)

// fillBill writes the licences into a bill of materials, after it was held against the program that it tells of and the go.mod that
// says what the program is to be built of.
func fillBill(ctx context.Context, file, program, goMod string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("reading the bill of materials: %w", err)
	}
	var bill cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(bytes.NewReader(text), cyclonedx.BOMFileFormatJSON).Decode(&bill); err != nil {
		return fmt.Errorf("%s: reading it as CycloneDX: %w", file, err)
	}
	info, in, err := modules(program)
	if err != nil {
		return err
	}
	required, err := requirements(goMod)
	if err != nil {
		return err
	}
	if err := errors.Join(checkBill(bill, info.GoVersion, in), checkRequired(in, required)); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	found, err := programLicenses(ctx, program)
	if err != nil {
		return err
	}
	byModule := map[string][]string{"std": {"BSD-3-Clause"}}
	for _, l := range found {
		byModule[l.module.Path] = append(byModule[l.module.Path], l.names...)
	}
	components := *bill.Components
	for i := range components {
		components[i].Licenses = choices(byModule[components[i].Name])
	}
	var filled bytes.Buffer
	encoder := cyclonedx.NewBOMEncoder(&filled, cyclonedx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false)
	if err := encoder.EncodeVersion(&bill, bill.SpecVersion); err != nil {
		return fmt.Errorf("%s: writing it: %w", file, err)
	}
	if err := os.WriteFile(file, filled.Bytes(), 0o644); err != nil { //nolint:gosec // it is for everybody
		return fmt.Errorf("writing the bill of materials: %w", err)
	}
	return nil
}

// choices names each licence once.
func choices(names []string) *cyclonedx.Licenses {
	var list cyclonedx.Licenses
	seen := map[string]bool{}
	for _, name := range names {
		if seen[name] {
			continue
		}
		seen[name] = true
		if known, ok := noSPDX[name]; ok {
			list = append(list, cyclonedx.LicenseChoice{License: &cyclonedx.License{Name: known}})
		} else {
			list = append(list, cyclonedx.LicenseChoice{License: &cyclonedx.License{ID: name}})
		}
	}
	if list == nil {
		return nil
	}
	return &list
}

// checkBill wants every module of the program in the bill, with its version and hash, and nothing else there.
func checkBill(bill cyclonedx.BOM, goVersion string, in map[string]*debug.Module) error {
	if bill.Components == nil {
		return errors.New("it lists no components")
	}
	var faults []error
	listed := map[string]bool{}
	for _, component := range *bill.Components {
		listed[component.Name] = true
		module := in[component.Name]
		switch {
		case component.Name == "std":
			if component.Version != goVersion {
				faults = append(faults, fmt.Errorf("the standard library is %s there and %s in the program", component.Version, goVersion))
			}
		case module == nil:
			faults = append(faults, fmt.Errorf("%s is not in the program", component.Name))
		case component.Version != module.Version:
			faults = append(faults, fmt.Errorf("%s is %s there and %s in the program", component.Name, component.Version, module.Version))
		case !hasHash(component, module.Sum):
			faults = append(faults, fmt.Errorf("%s %s has not the hash %s", component.Name, component.Version, module.Sum))
		}
	}
	if !listed["std"] {
		faults = append(faults, errors.New("it does not name Go's standard library"))
	}
	for path := range in {
		if !listed[path] {
			faults = append(faults, fmt.Errorf("it does not name %s, which is in the program", path))
		}
	}
	return errors.Join(faults...)
}

// hasHash compares go.sum's form of a hash, h1: and base64, with the bill's.
func hasHash(component cyclonedx.Component, sum string) bool {
	encoded, ok := strings.CutPrefix(sum, "h1:")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || component.Hashes == nil {
		return false
	}
	for _, hash := range *component.Hashes {
		if hash.Algorithm == cyclonedx.HashAlgoSHA256 && hash.Value == hex.EncodeToString(raw) {
			return true
		}
	}
	return false
}

func requirements(goMod string) (map[string]string, error) {
	text, err := os.ReadFile(goMod)
	if err != nil {
		return nil, fmt.Errorf("reading what the programs are to be built of: %w", err)
	}
	file, err := modfile.Parse(goMod, text, nil)
	if err != nil {
		return nil, fmt.Errorf("reading what the programs are to be built of: %w", err)
	}
	required := map[string]string{}
	for _, r := range file.Require {
		required[r.Mod.Path] = r.Mod.Version
	}
	return required, nil
}

// checkRequired wants what is in the program to be what go.mod names; a program of an older tree is told apart so.
func checkRequired(in map[string]*debug.Module, required map[string]string) error {
	var faults []error
	for path, module := range in {
		if required[path] != module.Version {
			faults = append(faults, fmt.Errorf("the program has %s %s, and go.mod asks for %q: build it anew", path, module.Version, required[path]))
		}
	}
	return errors.Join(faults...)
}
