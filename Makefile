# Two commands do everything on a new machine: `make run` and `make test`.

GO ?= go
TOOLS := $(CURDIR)/bin/tools
LINT := $(TOOLS)/golangci-lint
LINT_VERSION := v2.15.0
FUZZTIME ?= 30s

.PHONY: build run test setup format vet lint unit cross test-exporters test-webhook prove soak fuzz bench clean

build: ## bin/tidegate, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags="-s -w" -o bin/tidegate ./cmd/tidegate

run: build ## the lab: a node boots through the real gateway, in network namespaces
	bin/tidegate lab $(LAB)

test: setup format vet lint cross unit ## everything that has to hold

setup: $(LINT) ## what the tests need besides Go, from Debian's packages
	scripts/setup

$(LINT):
	GOBIN=$(TOOLS) GOFLAGS= $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

format:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt would change:"; gofmt -l $$(git ls-files '*.go'); exit 1; }

vet:
	$(GO) vet ./...

lint: $(LINT)
	$(LINT) run ./...

cross: ## the binary is static, and builds where people write rules
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./cmd/tidegate
	CGO_ENABLED=0 GOOS=windows GOARCH=amd64 $(GO) build -o /dev/null ./cmd/tidegate

# Packages whose tests put real load on real sockets, one at a time: beside each
# other they would measure each other.
LOADED := ./kernel ./lab ./check ./cmd/tidegate

unit: build ## all tests with the race detector; fuzz seeds are among them
	TIDEGATE_NETNS=required $(GO) test -race -timeout 25m $$($(GO) list ./... | grep -vxF "$$($(GO) list $(LOADED))")
	TIDEGATE_NETNS=required $(GO) test -race -timeout 25m -p 1 $(LOADED)

test-exporters: ## what export writes, read by the programs it is for
	scripts/setup-exporters
	TIDEGATE_REQUIRE=1 $(GO) test ./export

test-webhook: ## the webhook against Helm's engine and the API server's own evaluation; a module of its own
	cd deploy/webhook/peers && $(GO) test .

FOR ?= 10m
SOAK_SEED ?= 0

prove: build ## what must hold, held: faults around a running gateway; results.json, and the table of docs/reliability.md
	bin/tidegate lab faults $(PROVE) --results results.json $(if $(PROVE),,--markdown docs/reliability.md)

soak: build ## faults at random for FOR, again with SOAK_SEED; the trend of memory, goroutines and descriptors
	bin/tidegate lab faults --soak $(FOR) --seed $(SOAK_SEED) --results results.json

fuzz: ## every fuzz target for FUZZTIME
	scripts/fuzz $(FUZZTIME)

bench: ## the benchmarks of the hot functions
	$(GO) test -run '^$$' -bench . -benchmem ./...

clean:
	rm -rf bin
