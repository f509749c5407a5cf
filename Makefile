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

# Tools are built once per version, from the modules under tools/ that pin them. sqlc without cgo builds in seconds.
pinned = $(shell sed -nE 's|^(require)?[[:space:]]*$(1) (v[^ ]+).*|\2|p' $(2))
SQLC := .tools/sqlc-$(call pinned,github.com/sqlc-dev/sqlc,tools/go.mod)
GOLANGCI := .tools/golangci-lint-$(call pinned,github.com/golangci/golangci-lint/v2,tools/lint/go.mod)
GOVULNCHECK := .tools/govulncheck-$(call pinned,golang.org/x/vuln,tools/vuln/go.mod)
CYCLONEDX := .tools/cyclonedx-gomod-$(call pinned,github.com/CycloneDX/cyclonedx-gomod,tools/supply/go.mod)
SUPPLY := .tools/supply

# What is handed out, and how it is built, in the image too: static, and the same bytes wherever the same Go builds the same commit.
# Go itself notes the commit where it builds in a clone; VERSION names the release where it cannot, as in the image.
PROGRAMS := ingest worker truenorth
LDFLAGS = -s -w$(if $(VERSION), -X github.com/truenorth-dev/truenorth/cmd/internal/program.version=$(VERSION))

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: ## run everything on this machine, with a PostgreSQL and a Polar of its own
	go run ./cmd/truenorth dev

.PHONY: test
test: ## run all tests on a PostgreSQL of their own
	@[[ -n "$(RACE)" ]] || echo "note: no C compiler, so without the race detector" >&2
	@for tool in node npm promtool nginx caddy pgbouncer systemd-analyze zsh fish; do \
		PATH="$$PATH:/usr/sbin" command -v $$tool > /dev/null || echo "note: no $$tool, so what needs it is NOT tested" >&2; done
	@git -c safe.directory='*' cat-file -e $$(sed -nE 's/.*Before +(string )?= "([0-9a-f]{40})"/\2/p' internal/releasetest/releasetest.go)^{commit} 2> /dev/null || \
		echo "note: no history of the release before, so upgrades from it are NOT tested (git fetch --unshallow)" >&2
	$(WITHPG) go test $(RACE) -count=1 -shuffle=on -parallel 8 -timeout 15m $(PKG)

.PHONY: lint
lint: $(GOLANGCI) ## look for faults and for format, without changing anything
	$(GOLANGCI) run $(PKG)

.PHONY: bench-check
bench-check: $(GOLANGCI) ## vet, lint and test the module of the benchmarks, with a smoke run of all of them and a minute of load
	cd bench && go vet ./... && ../$(GOLANGCI) run ./... && go test -count=1 -timeout 15m ./...

.PHONY: chaos-check
chaos-check: $(GOLANGCI) ## vet, lint and test the module of the chaos runs
	cd chaos && go vet ./... && ../$(GOLANGCI) run ./... && go test -count=1 -timeout 5m ./...

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
	CGO_ENABLED=0 go build -trimpath -ldflags='$(LDFLAGS)' -o bin/ $(PROGRAMS:%=./cmd/%)

.PHONY: reproduce
reproduce: $(SUPPLY) ## build the last commit twice, in two folders, and fail if one byte differs or a program is not static
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	printf '[safe]\n\tdirectory = *\n' > "$$dir/gitconfig"; export GIT_CONFIG_GLOBAL="$$dir/gitconfig" GOFLAGS=-buildvcs=true; \
	for clone in "$$dir/one" "$$dir/in another/folder"; do git clone --quiet . "$$clone"; done; \
	$(MAKE) --no-print-directory -C "$$dir/one" build; \
	(umask 077; TZ=Asia/Tokyo GOCACHE="$$dir/cache" $(MAKE) --no-print-directory -C "$$dir/in another/folder" build); \
	$(SUPPLY) equal "$$dir/one/bin" "$$dir/in another/folder/bin"; \
	$(SUPPLY) static $(PROGRAMS:%="$$dir/one/bin/%"); \
	for program in $(PROGRAMS); do \
		[[ $$("$$dir/one/bin/$$program" --version) == *"commit $$(git -C "$$dir/one" rev-parse HEAD))" ]] || \
			{ echo "$$program --version does not tell the commit it was built from"; exit 1; }; done; \
	(cd "$$dir/one/bin" && sha256sum $(PROGRAMS))

.PHONY: sbom
sbom: build $(CYCLONEDX) $(SUPPLY) ## write a bill of materials of each program and the licences of all that is in them into bin/, and check them
	@for program in $(PROGRAMS:%=bin/%); do \
		$(CYCLONEDX) bin -json -std -noserial -notimestamp $(if $(VERSION),-version $(VERSION)) -output "$$program.cdx.json" "$$program" 2> /dev/null; \
		$(SUPPLY) bill "$$program.cdx.json" "$$program"; done
	$(SUPPLY) licenses bin/NOTICES.txt $(PROGRAMS:%=bin/%)

.PHONY: supply-check
supply-check: $(GOLANGCI) ## vet, lint and test the module that judges what is handed out
	cd tools/supply && go vet ./... && ../../$(GOLANGCI) run ./... && go test -count=1 ./...

.PHONY: vuln
vuln: $(GOVULNCHECK) ## look for known vulnerabilities in what is called (VULNDB: another database than vuln.go.dev)
	@for module in . bench chaos tools/supply; do \
		echo "== $$module"; \
		if said=$$($(GOVULNCHECK) $(if $(VULNDB),-db $(VULNDB)) -C "$$module" -test ./... 2>&1); then echo "$$said"; \
		elif [[ $$said == *"govulncheck: fetching vulnerabilities:"* ]]; then \
			echo "left out: the database cannot be reached"; echo "$$said"; exit 0; \
		else echo "$$said"; exit 1; fi; done

.PHONY: build-chaos
build-chaos: ## build the programs into bin/chaos/ with a clock that steps and points to die at
	go run ./internal/testbuild/build bin/chaos ./cmd/ingest ./cmd/worker ./cmd/truenorth

.PHONY: bench
bench: ## measure everything in twenty minutes and write docs/performance.md (BENCH=-short: a smoke run; BENCH=--help)
	cd bench && go run . $(BENCH)

.PHONY: load
load: ## put the programs under load for an hour, judge that, and write docs/load.md (LOAD=-short: a minute; LOAD=--help)
	cd bench && go run . load $(LOAD)

.PHONY: microbench
microbench: ## run the Go benchmarks on a PostgreSQL of their own
	$(WITHPG) go test -run='^$$' -bench=. -benchmem -timeout 30m $(PKG)

.PHONY: chaos
chaos: ## break truenorth on several hosts, and judge what it promises (CHAOS=--short: two minutes; CHAOS=--help)
	@cd chaos && go build -o ../.tools/chaos . && ../.tools/chaos $(CHAOS)

.PHONY: converge
converge: ## play SEEDS (200) random histories under random faults, from SEED (1) on, until the mirror equals Polar
	$(WITHPG) go test -count=1 -timeout 60m -parallel 6 -run '^TestConvergence$$' ./internal/jobs -args -seeds=$(SEEDS) -seed=$(SEED)

.PHONY: crash
crash: ## kill ingest, worker and truenorth at every point that the sources mark, and see that each goes on
	$(WITHPG) go test -count=1 -timeout 15m -parallel 8 ./internal/crashpoint

.PHONY: fuzz
fuzz: ## run every fuzz test for FUZZTIME (10s) each
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort | while IFS=: read -r file func; do \
		echo "== $${func#func } in $$(dirname "$$file")"; \
		$(WITHPG) go test -run='^$$' -fuzz="^$${func#func }$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=20x "$$(dirname "$$file")" < /dev/null; \
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

$(GOVULNCHECK): tools/vuln/go.mod
	cd tools/vuln && CGO_ENABLED=0 go build -o ../../$@ golang.org/x/vuln/cmd/govulncheck
	@touch $@

# Its own hash goes into what it writes.
$(CYCLONEDX): tools/supply/go.mod
	cd tools/supply && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o ../../$@ github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
	@touch $@

$(SUPPLY): tools/supply/go.mod $(wildcard tools/supply/*.go)
	cd tools/supply && CGO_ENABLED=0 go build -o ../../$@ .
	@touch $@
