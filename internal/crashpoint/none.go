//go:build !crashpoints

package crashpoint

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Here is a point.
func Here(string) {}

// WhenSent gives a context for a call over HTTP. The point is where the request is sent and no answer read.
func WhenSent(ctx context.Context, _ string) context.Context { return ctx }

// AfterStatements makes the end of every statement on connections of this configuration a point.
func AfterStatements(*pgx.ConnConfig, string) {}
