package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"text/tabwriter"
	"time"
)

type keysCommand struct {
	Create keysCreateCommand `cmd:"" help:"Make a key and print it, this once."`
	List   keysListCommand   `cmd:"" help:"List the keys; what they are is kept nowhere."`
	Revoke keysRevokeCommand `cmd:"" help:"Make a key open nothing, from the next request on."`
}

// Help is shown by `truenorth keys --help`.
func (keysCommand) Help() string {
	return `Apps send a key to the worker's /v1 as "Authorization: Bearer KEY". GET /v1/openapi.json describes what is there.`
}

type keysCreateCommand struct {
	Name string `arg:"" help:"Which app it is for; no other live key has the name."`
}

// keyPrefix lets people, and scanners of leaked secrets, know a key when they see one.
const keyPrefix = "truenorth_"

func (c keysCreateCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	key := keyPrefix + base64.RawURLEncoding.EncodeToString(secret[:])
	stored, err := s.InsertAPIKey(ctx, c.Name, sha256.Sum256([]byte(key)))
	if err != nil {
		return err
	}
	if !stored {
		return fmt.Errorf("a live key is named %q: give another name, or revoke that one first", c.Name)
	}
	fmt.Fprintln(e.stdout, key)
	fmt.Fprintln(e.stderr, "Keep it now: it is not shown again. Apps send it as Authorization: Bearer KEY.")
	return nil
}

type keysListCommand struct {
	JSON bool `help:"Print JSON."`
}

func (c keysListCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	keys, err := s.ListAPIKeys(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(e.stdout, keys)
	}
	if len(keys) == 0 {
		fmt.Fprintln(e.stdout, "There are no keys: truenorth keys create NAME makes one.")
		return nil
	}
	table := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tCREATED\tLAST USED\tREVOKED")
	moment := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return t.UTC().Format(time.RFC3339)
	}
	for _, k := range keys {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", k.Name, moment(&k.CreatedAt), cmp.Or(moment(k.LastUsedAt), "never"), cmp.Or(moment(k.RevokedAt), "no"))
	}
	return table.Flush()
}

type keysRevokeCommand struct {
	Name string `arg:"" help:"Which key."`
}

func (c keysRevokeCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.RevokeAPIKey(ctx, c.Name); err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "The key of %s opens nothing any more.\n", c.Name)
	return nil
}
