# Two commands do everything on a new machine: `make run` and `make test`.

GO ?= go
TOOLS := $(CURDIR)/bin/tools
LINT := $(TOOLS)/golangci-lint
LINT_VERSION := v2.15.0
FUZZTIME ?= 30s

.PHONY: build run test setup format vet lint unit cross test-exporters test-peers test-webhook test-mirror bench-mirror test-bin e2e e2e-short prove soak fuzz bench bench-quick bench-build bench-go clean

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
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./...
	CGO_ENABLED=0 GOOS=windows GOARCH=amd64 $(GO) build -o /dev/null ./cmd/tidegate

# Packages whose tests put real load on real sockets, one at a time: beside each
# other they would measure each other.
LOADED := ./kernel ./lab ./check ./export ./cmd/tidegate

unit: build ## all tests with the race detector; fuzz seeds are among them
	TIDEGATE_NETNS=required $(GO) test -race -timeout 25m $$($(GO) list ./... | grep -vxF "$$($(GO) list $(LOADED) ./e2e)")
	TIDEGATE_NETNS=required $(GO) test -race -timeout 25m -p 1 $(LOADED)

# Each format is read by the programs it is for. Two of these are in no package and
# are built once, into bin/peers: OpenTofu (5 minutes, 2 GB of memory on two cores)
# and Terraform's provider for Azure with its firewall alone (10 minutes, 4 GB).
# After that test-exporters takes a minute; test-peers, which is all that needs
# neither them nor an API server, takes 20 s once its modules are compiled (1 minute).
TOFU := bin/peers/tofu-1.12.6/tofu
AZURERM := bin/peers/azurerm-5.2.0/terraform-provider-azurerm
BICEP := export/peers/bicep/node_modules
KUBEBUILDER_ASSETS ?= $(CURDIR)/bin/parts

$(TOFU):
	scripts/build-peer tofu $@

$(AZURERM):
	scripts/build-peer azurerm $@

$(BICEP): export/peers/bicep/package-lock.json
	scripts/setup-exporters
	cd export/peers/bicep && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

test-exporters: $(TOFU) $(AZURERM) $(BICEP) ## what export writes, read by the programs it is for; export/peers is a module of its own
	scripts/setup-exporters
	TIDEGATE_REQUIRE=1 TIDEGATE_NETNS=required $(GO) test ./export
	cd export/peers && TIDEGATE_REQUIRE=1 TIDEGATE_TOFU=$(CURDIR)/$(TOFU) TIDEGATE_AZURERM=$(CURDIR)/$(AZURERM) \
		KUBEBUILDER_ASSETS=$(KUBEBUILDER_ASSETS) $(GO) test .

test-peers: $(BICEP) ## the quick part of it: no Terraform and no API server
	cd export/peers && TIDEGATE_REQUIRE=1 $(GO) test -skip 'TestTerraform|TestKubernetes' .

test-webhook: ## the webhook against Helm's engine and, once test-bin has run, a real API server; a module of its own
	cd deploy/webhook/peers && $(GO) test .

test-bin: ## etcd, the API server, the kubelet, containerd, konnectivity, kubectl: built once, into bin/parts
	scripts/setup
	scripts/setup-e2e
	scripts/test-bin

e2e: test-bin ## a real node, tunnel and API server behind the real gateway; as root
	TIDEGATE_NETNS=required TIDEGATE_E2E=required $(GO) test -timeout 20m ./e2e
	TIDEGATE_NETNS=required TIDEGATE_E2E=required $(GO) test -run 'TestWebhookRenews|TestClocks' ./cmd/tidegate
	cd deploy/webhook/peers && TIDEGATE_E2E=required $(GO) test .

e2e-short: test-bin ## the shortest of them: the node is ready, its pod runs and is heard
	TIDEGATE_NETNS=required TIDEGATE_E2E=required $(GO) test -short -timeout 5m ./e2e

FOR ?= 10m
SOAK_SEED ?= 0

prove: build ## what must hold, held: attacks, and faults around a running gateway; results.json, and the table of docs/reliability.md
	bin/tidegate lab --attack $(PROVE) --results results.json
	bin/tidegate lab faults $(PROVE) --results results.json $(if $(PROVE),,--markdown docs/reliability.md)

soak: build ## faults at random for FOR, again with SOAK_SEED; the trend of memory, goroutines and descriptors
	bin/tidegate lab faults --soak $(FOR) --seed $(SOAK_SEED) --results results.json --markdown docs/reliability.md

test-mirror: ## containerd, skopeo, crane, oras and the OCI conformance tests against the mirror; a module of its own
	scripts/setup-mirror
	$(GO) test ./mirror
	cd mirror/peers && TIDEGATE_REQUIRE=1 $(GO) test .

bench-mirror: ## a blob of 1 GB from the mirror and from nginx, over TLS, in turns
	scripts/setup-mirror
	cd mirror/peers && TIDEGATE_REQUIRE=1 $(GO) test -run '^$$' -bench Serving -benchtime 5x .

fuzz: ## every fuzz target for FUZZTIME (FUZZ='-only FuzzDecide'); results.json, and the totals of docs/fuzz.md
	$(GO) run ./fuzz -time $(FUZZTIME) -o results.json -totals docs/fuzz.json -report docs/fuzz.md $(FUZZ)

bench: bench-build ## what the gateway costs beside peers, a quarter of an hour, root: results.json and docs/performance.md
	cd bench/coredns && $(GO) build -o ../../bin/coredns .
	bin/bench -o results.json -report docs/performance.md $(BENCH)

bench-quick: bench-build ## the same in a minute: everything works, what must be zero is; its times mean nothing
	bin/bench -quick -o bin/results-quick.json -report bin/performance-quick.md

bench-build: build
	scripts/setup-bench
	$(GO) build -o bin/bench ./bench

bench-go: ## the Go benchmarks of the hot functions
	$(GO) test -run '^$$' -bench . -benchmem ./...

clean:
	rm -rf bin
