package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/truenorth-dev/truenorth/internal/store"
)

type keysCommand struct {
	Create keysCreateCommand `cmd:"" help:"Make a key and print it, this once."`
	List   keysListCommand   `cmd:"" help:"List the keys; what they are is kept nowhere."`
	Revoke keysRevokeCommand `cmd:"" help:"Make a key open nothing, from the next request on."`
}

func (keysCommand) about() about {
	return about{text: `Apps send a key to the worker's /v1 as "Authorization: Bearer KEY". GET /v1/openapi.json describes what is there.`}
}

func (keysCreateCommand) about() about {
	return about{
		text:     "Only a hash of the key is stored. It is printed alone on standard output.",
		needs:    "DATABASE_URL",
		examples: []example{{"KEY=$(truenorth keys create shop)", ""}},
		prints:   []document{{value: newKey{}}},
	}
}

func (keysListCommand) about() about {
	return about{
		needs:    "DATABASE_URL",
		examples: []example{{"truenorth keys list", ""}},
		prints:   []document{{value: []store.APIKey{}, rows: "polar.api_key"}},
	}
}

func (keysRevokeCommand) about() about {
	return about{
		needs:    "DATABASE_URL",
		examples: []example{{"truenorth keys revoke shop", "what is made with it from now on is refused"}},
		prints:   []document{{value: revokedKey{}}},
	}
}

// newKey is the one place where a key is printed.
type newKey struct {
	Name string `json:"name"`
	Key  string `json:"key"`
}

// revokedKey is a key that opens nothing any more.
type revokedKey struct {
	Name    string `json:"name"`
	Revoked bool   `json:"revoked"`
}

type keysCreateCommand struct {
	Name string `arg:"" help:"Which app it is for, in 1 to 100 characters; no other live key has the name."`
}

// Validate is called by kong.
func (c keysCreateCommand) Validate() error {
	switch length := utf8.RuneCountInString(c.Name); {
	case strings.TrimSpace(c.Name) == "":
		return errors.New("the name of the key is empty: say which app it is for")
	case length > 100:
		return fmt.Errorf("the name of the key has %d characters: give at most 100", length)
	}
	return nil
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
	stored, err := s.InsertAPIKey(ctx, c.Name, sha256.Sum256([]byte(key)), store.Word{Actor: whoami()})
	if err != nil {
		return err
	}
	if !stored {
		return failure("give another name, or revoke that one first", "a live key is named %q", c.Name)
	}
	if !e.json {
		e.notef("Keep it now: it is not shown again. Apps send it as Authorization: Bearer KEY.")
	}
	return e.print(newKey{c.Name, key}, linef("%s", key))
}

type keysListCommand struct{}

func (keysListCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	keys, err := s.ListAPIKeys(ctx)
	if err != nil {
		return err
	}
	return e.print(keys, func(w io.Writer) error { return printKeys(w, keys) })
}

func printKeys(w io.Writer, keys []store.APIKey) error {
	if len(keys) == 0 {
		return linef("There are no keys: truenorth keys create NAME makes one.")(w)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tCREATED\tLAST USED\tREVOKED")
	for _, k := range keys {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", k.Name, shownTime(&k.CreatedAt), timeOr(k.LastUsedAt, "never"), timeOr(k.RevokedAt, "no"))
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
	if err := s.RevokeAPIKey(ctx, c.Name, store.Word{Actor: whoami()}); errors.Is(err, store.ErrNotFound) {
		return failure("see truenorth keys list", "no live key is named %q", c.Name)
	} else if err != nil {
		return err
	}
	return e.print(revokedKey{c.Name, true}, linef("The key of %s opens nothing any more.", c.Name))
}
