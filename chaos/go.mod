module github.com/truenorth-dev/truenorth/chaos

go 1.26.0

replace github.com/truenorth-dev/truenorth => ../

require (
	github.com/jackc/pgx/v5 v5.12.0
	github.com/truenorth-dev/truenorth v0.0.0
	golang.org/x/sys v0.50.0
)

require (
	github.com/google/uuid v1.6.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/standard-webhooks/standard-webhooks/libraries v0.0.1 // indirect
	golang.org/x/sync v0.25.0 // indirect
	golang.org/x/text v0.44.0 // indirect
)
