# Every target needs Go alone, and says so where it needs more. "make" lists them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

FUZZTIME ?= 10s
PKG ?= ./...
SEEDS ?= 200
SEED ?= 1

# A PostgreSQL server for the time of one command. Without PostgreSQL the command fails; nothing is skipped.
WITHPG := go run ./internal/embeddedpg/withpg --

# The race detector needs a C compiler, without which Go turns cgo off.
RACE = $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)

# Static programs go to bin/.
BUILD := CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o bin/

# Tools are built once per version, from the modules under tools/ that pin them. sqlc without cgo builds in seconds.
pinned = $(shell sed -nE 's|^(require)?[[:space:]]*$(1) (v[^ ]+).*|\2|p' $(2))
SQLC := .tools/sqlc-$(call pinned,github.com/sqlc-dev/sqlc,tools/go.mod)
GOLANGCI := .tools/golangci-lint-$(call pinned,github.com/golangci/golangci-lint/v2,tools/lint/go.mod)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: ## run everything on this machine, with a PostgreSQL and a Polar of its own
	$(BUILD) ./cmd/truenorth
	@exec bin/truenorth dev

.PHONY: test
test: ## run all tests on a PostgreSQL of their own
	@[[ -n "$(RACE)" ]] || echo "note: no C compiler, so without the race detector" >&2
	@for tool in node npm promtool nginx caddy pgbouncer systemd-analyze zsh fish; do \
		PATH="$$PATH:/usr/sbin" command -v $$tool > /dev/null || echo "note: no $$tool, so what needs it is NOT tested" >&2; done
	$(WITHPG) go test $(RACE) -count=1 -shuffle=on -parallel 8 -timeout 15m $(PKG)

.PHONY: lint
lint: $(GOLANGCI) ## look for faults and for format, without changing anything
	$(GOLANGCI) run $(PKG)

.PHONY: bench-check
bench-check: $(GOLANGCI) ## vet, lint and test the module of the benchmarks, with a smoke run of all of them
	cd bench && go vet ./... && ../$(GOLANGCI) run ./... && go test -count=1 -timeout 10m ./...

.PHONY: fmt
fmt: $(GOLANGCI) ## format the Go code
	$(GOLANGCI) fmt

.PHONY: generate
generate: $(SQLC) ## write the Go code of the SQL queries
	$(SQLC) generate

.PHONY: generate-check
generate-check: $(SQLC) ## fail if generate would change anything
	$(SQLC) diff

.PHONY: sdk-check
sdk-check: ## run Polar's official npm client against the fake Polar (needs node and npm)
	bash internal/polarfake/sdkcheck/run.sh

.PHONY: docs
docs: ## write docs/cli.md from the commands and what they print
	$(WITHPG) go test -count=1 -timeout 5m -run '^TestTheTour' ./cmd/truenorth -args -update

.PHONY: build
build: ## build the static programs into bin/
	$(BUILD) ./cmd/ingest ./cmd/worker ./cmd/truenorth

.PHONY: bench
bench: ## measure everything in twenty minutes and write docs/performance.md (BENCH=-short: a smoke run; BENCH=--help)
	cd bench && go run . $(BENCH)

.PHONY: microbench
microbench: ## run the Go benchmarks on a PostgreSQL of their own
	$(WITHPG) go test -run='^$$' -bench=. -benchmem -timeout 30m $(PKG)

.PHONY: converge
converge: ## play SEEDS (200) random histories under random faults, from SEED (1) on, until the mirror equals Polar
	$(WITHPG) go test -count=1 -timeout 60m -parallel 6 -run '^TestConvergence$$' ./internal/jobs -args -seeds=$(SEEDS) -seed=$(SEED)

.PHONY: fuzz
fuzz: ## run every fuzz test for FUZZTIME (10s) each
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort | while IFS=: read -r file func; do \
		echo "== $${func#func } in $$(dirname "$$file")"; \
		$(WITHPG) go test -run='^$$' -fuzz="^$${func#func }$$" -fuzztime=$(FUZZTIME) "$$(dirname "$$file")" < /dev/null; \
	done

.PHONY: clean
clean: ## remove what was built
	rm -rf bin .tools

$(SQLC): tools/go.mod
	cd tools && CGO_ENABLED=0 go build -o ../$@ github.com/sqlc-dev/sqlc/cmd/sqlc
	@touch $@

$(GOLANGCI): tools/lint/go.mod
	cd tools/lint && CGO_ENABLED=0 go build -o ../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@
