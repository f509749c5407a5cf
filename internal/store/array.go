package store

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/jackc/pgx/v5/pgtype"
)

// arrayCodec encodes an array of texts or of documents at its size. pgx's own lets its buffer grow with the array, and so
// copies each document half a dozen times.
type arrayCodec[T ~string | ~[]byte] struct {
	*pgtype.ArrayCodec

	null   func(item T) bool
	prefix string // of each item
}

// encodeArraysAtOnce makes a connection encode a []string as text[], and a []json.RawMessage as jsonb[], in one go.
func encodeArraysAtOnce(m *pgtype.Map) {
	const jsonbVersion = "\x01"
	atOnce(m, pgtype.TextArrayOID, "", func(string) bool { return false })
	atOnce(m, pgtype.JSONBArrayOID, jsonbVersion, func(document json.RawMessage) bool { return document == nil })
}

func atOnce[T ~string | ~[]byte](m *pgtype.Map, oid uint32, prefix string, null func(T) bool) {
	if known, ok := m.TypeForOID(oid); ok {
		if codec, ok := known.Codec.(*pgtype.ArrayCodec); ok {
			m.RegisterType(&pgtype.Type{Name: known.Name, OID: oid, Codec: arrayCodec[T]{ArrayCodec: codec, null: null, prefix: prefix}})
		}
	}
}

// PlanEncode is asked with the value as it is before pgx tries its wrappers of it.
func (c arrayCodec[T]) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if _, ok := value.([]T); ok && format == pgtype.BinaryFormatCode {
		return c
	}
	return c.ArrayCodec.PlanEncode(m, oid, format, value)
}

// Encode appends the array to buf as Postgres' array_recv reads it.
func (c arrayCodec[T]) Encode(value any, buf []byte) ([]byte, error) {
	items, ok := value.([]T)
	if !ok {
		return nil, fmt.Errorf("encoding a %T as an array", value)
	}
	if items == nil {
		return nil, nil
	}
	const header, word = 5, 4 // the header in words
	size, nulls := header*word, uint32(0)
	for _, item := range items {
		size += word + len(c.prefix) + len(item)
		if c.null(item) {
			nulls = 1
		}
	}
	if size > math.MaxInt32 {
		return nil, fmt.Errorf("encoding an array of %d bytes, over the 2 GiB that a parameter may have", size)
	}
	buf = slices.Grow(buf, size)
	put := func(words ...uint32) {
		for _, n := range words {
			buf = binary.BigEndian.AppendUint32(buf, n)
		}
	}
	put(1, nulls, c.ElementType.OID, uint32(len(items)), 1) //nolint:gosec // one dimension, whose first index is 1; checked above
	for _, item := range items {
		if c.null(item) {
			put(math.MaxUint32)
			continue
		}
		put(uint32(len(c.prefix) + len(item))) //nolint:gosec // checked above
		buf = append(buf, c.prefix...)
		buf = append(buf, item...)
	}
	return buf, nil
}
