// Package migrations holds the numbered steps that lead a database to schema.sql.
package migrations

import "embed"

// FS holds the steps, in goose's form: NNNNN_name.sql with an up and a down part.
//
//go:embed 0*.sql
var FS embed.FS

// Grants says what each role may do. It is run after the steps, every time.
//
//go:embed grants.sql
var Grants string
