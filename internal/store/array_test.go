package store //nolint:testpackage // the codec is no part of what the package offers

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"
)

func TestArraysAreEncodedAsPgxDoes(t *testing.T) {
	t.Parallel()
	plain, ours := pgtype.NewMap(), pgtype.NewMap()
	encodeArraysAtOnce(ours)
	same := func(t *rapid.T, oid uint32, value any) {
		before := []byte("what is there already")
		want, err := plain.Encode(oid, pgtype.BinaryFormatCode, value, bytes.Clone(before))
		if err != nil {
			t.Fatalf("pgx refuses: %v", err)
		}
		got, err := ours.Encode(oid, pgtype.BinaryFormatCode, value, bytes.Clone(before))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q is encoded as %x, %v; pgx: %x", value, got, err, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOf(rapid.String()).Draw(t, "texts")
		same(t, pgtype.TextArrayOID, texts)
		documents := make([]json.RawMessage, len(texts))
		for i, text := range texts {
			if rapid.Bool().Draw(t, "null") {
				continue
			}
			documents[i] = append(json.RawMessage{}, text...)
		}
		same(t, pgtype.JSONBArrayOID, documents)
		same(t, pgtype.TextArrayOID, []string(nil))
		same(t, pgtype.JSONBArrayOID, []json.RawMessage(nil))
		same(t, pgtype.TextArrayOID, []*string{nil}) // left to pgx
	})
}

func BenchmarkArrayOfDocuments(b *testing.B) {
	documents := make([]string, 128)
	for i := range documents {
		documents[i] = string(bytes.Repeat([]byte("x"), 2000))
	}
	plain, ours := pgtype.NewMap(), pgtype.NewMap()
	encodeArraysAtOnce(ours)
	for name, m := range map[string]*pgtype.Map{"pgx": plain, "at its size": ours} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Encode(pgtype.TextArrayOID, pgtype.BinaryFormatCode, documents, make([]byte, 0, 128)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
