# make help tells what there is. Only Go is needed for help, build, run and demo.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GO ?= go
# The rooms that hold Go code.
ROOMS := $(wildcard cmd handlers providers ratelimit streaming web)
# Arguments for run and bench: make run ARGS='--listen 127.0.0.1:9000'.
ARGS ?=
# For demo.
PORT ?= 8089
PROMPT ?= Water flows when the gate opens, one token at a time.
FUZZTIME ?= 20s
COUNT ?= 3
STATICCHECK := 0.8.2

export GO

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: go
go:
	@command -v $(GO) >/dev/null || { echo "Go is missing. Install Go 1.26 or newer from https://go.dev/dl (or: apt-get install golang), then try again." >&2; exit 1; }

.PHONY: run
run: build ## start the gateway with the embedded demo models; prints its address and a key (ARGS=...)
	@exec bin/sluice serve --set drain.delay=0s $(ARGS)

.PHONY: build
build: go ## compile bin/sluice, static and with its version
	@CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/sluice ./cmd/sluice

.PHONY: test
test: go ## everything that fits into 15 minutes on 2 cores, real components included (what CI runs)
	@.ci/setup test
	@$(MAKE) format vet
	@race=-race; command -v gcc clang cc >/dev/null || { race=; echo "WARNING: no C compiler, so tests run without the race detector" >&2; }; \
	set -x; $(GO) test $$race -timeout 14m ./...

.PHONY: format vet
format:
	@unformatted=$$(gofmt -l $(ROOMS)); test -z "$$unformatted" || { echo "not formatted, run gofmt -w on:" $$unformatted >&2; exit 1; }
vet:
	$(GO) vet ./...
	$(GO) vet -tags prove ./...

.PHONY: prove
prove: go ## the long proofs: real model servers, every byte offset, 45,000 streams, benchmarks with limits (80 minutes)
	@.ci/setup prove
	@.ci/prove

# One real model server each; what it needs is installed first.
REAL = @.ci/setup prove && $(GO) test -tags prove -count=1 -timeout 40m ./cmd/sluice -run

.PHONY: real-mii real-ollama real-llamacpp real-triton real-mlserver
real-mii: go ## DeepSpeed-MII's own balancer and server behind the gateway
	$(REAL) 'TestMIIReal'
real-ollama: go ## a real Ollama with a tiny model of our own
	$(REAL) 'TestRealOllama'
real-llamacpp: go ## llama.cpp's server and llama-cpp-python (builds for some minutes, once)
	$(REAL) 'TestRealModel|TestRealLlamaNative'
real-triton: go ## a real Triton over HTTP and gRPC
	$(REAL) 'TestRealTriton'
real-mlserver: go ## MLServer over HTTP and gRPC
	$(REAL) 'TestRealMLServer'

.PHONY: race
race: go ## all tests under the race detector, repeated and shuffled (COUNT=3)
	$(GO) test -race -shuffle=on -count=$(COUNT) -timeout 60m ./...

.PHONY: fuzz
fuzz: go ## every fuzz target for FUZZTIME=20s
	@grep -rHoE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' $(ROOMS) | while IFS=': ' read -r file _ name; do \
		echo "== $$name in $$(dirname "$$file")"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")"; \
	done

.PHONY: bench
bench: go ## what one relayed token costs, side by side with nginx and a plain Go proxy (ARGS=--quick)
	@.ci/setup bench
	$(GO) run ./cmd/bench $(ARGS)
	$(GO) test -run '^$$' -bench . -benchmem ./...

.PHONY: lint
lint: go format vet ## gofmt, go vet, staticcheck, shellcheck, and golangci-lint if it is installed
	@.ci/setup lint
	@GOBIN=$(CURDIR)/.cache/bin/staticcheck-$(STATICCHECK) $(GO) install honnef.co/go/tools/cmd/staticcheck@v$(STATICCHECK) \
	|| { echo "SKIPPED: staticcheck cannot be installed" >&2; test "$${CI:-}" != true; exit 0; }; \
	set -x; .cache/bin/staticcheck-$(STATICCHECK)/staticcheck -tags prove ./...
	@if command -v shellcheck >/dev/null; then set -x; shellcheck $$(find .ci $(ROOMS) -type f \( -path '.ci/*' -o -name '*.sh' \) -not -path '*/node_modules/*'); \
	else echo "SKIPPED: shellcheck is not installed" >&2; fi
	@if command -v golangci-lint >/dev/null; then set -x; golangci-lint run; \
	else echo "SKIPPED: golangci-lint is not installed (its settings stand in .golangci.yml)" >&2; fi

.PHONY: check
check: lint test ## lint and test: what a change must pass

.PHONY: demo
demo: build ## start a gateway, stream one answer of a demo model to the terminal, stop
	@export SLUICE_KEYS__0__NAME=demo SLUICE_KEYS__0__KEY=sk-demo-0123456789abcdef SLUICE_DRAIN__DELAY=0s SLUICE_LOG__LEVEL=warn \
		SLUICE_LOG__ACCESS=off SLUICE_SERVER__LISTEN=127.0.0.1:$(PORT) SLUICE_SERVER__ADMIN_LISTEN=; \
	bin/sluice serve & gateway=$$!; trap 'kill $$gateway 2>/dev/null || true; wait' EXIT; \
	for _ in $$(seq 50); do \
		sleep 0.1; \
		kill -0 $$gateway 2>/dev/null || { echo "the gateway did not start; another port: make demo PORT=8090" >&2; exit 1; }; \
		! bin/sluice healthcheck 2>/dev/null || break; \
	done; \
	bin/sluice chat --model demo-echo '$(PROMPT)'
