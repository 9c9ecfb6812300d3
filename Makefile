# The whole interface for a newcomer. `make` alone lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
export SQLX_OFFLINE ?= true
NEWEST := target/newest-docker

SEEDS ?= 0..1000
CASES ?= 20000
OPENAPI_SECONDS ?= 240
AGENTS ?= 10000
EVENTS ?= 10000000

.PHONY: help quickstart quickstart-down test conformance simulate model chaos fuzz fuzz-openapi mutants bench bench-audit bench-fleet bench-live schemas fmt lint

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: ## From a fresh machine to a running control plane with this host in it
	@examples/quickstart/up.sh

quickstart-down: ## Undo quickstart: stop what it started, remove its data
	@examples/quickstart/down.sh

# Tests on real engines wait more than they work, so there is one more for every two processors.
test: ## Everything that proves it: real Postgres, real Docker Engines, the real kubectl
	@e2e/scripts/needs.sh
	cargo test --locked --doc -p gantry-api
	cargo nextest run --locked --workspace --test-threads $$(($$(nproc) * 3 / 2))
	@if [ -x $(NEWEST)/dockerd ]; then set -x; GANTRY_E2E_DOCKER_PROGRAMS=$(CURDIR)/$(NEWEST) cargo nextest run --locked \
	  --workspace -E 'package(gantry-e2e) & (test(/^operate/) | test(a_stopped_engine) | test(operations_survive))'; \
	else echo "hint: 'e2e/scripts/newest-docker.sh $(NEWEST)' fetches the newest Docker Engine to test on too"; fi
	@$(MAKE) --no-print-directory conformance
	@$(MAKE) --no-print-directory simulate

conformance: ## What kubectl, kube-rs and the clients of Python and Node find in the API, case by case
	@e2e/scripts/conformance.sh

model: ## The model of operations and the link, explored further than `make test` does
	cargo run --locked --release -p gantry-model

simulate: ## Seeds of the simulation: make simulate SEEDS=0..20000; one alone is told step by step with gantry-simulate -v
	cargo run --locked --release -p gantry-e2e --bin gantry-simulate -- --seeds $(SEEDS)

chaos: ## The table of faults, row by row, on real engines: what is required and what was measured
	@e2e/scripts/chaos.sh

fuzz: ## Whatever a client may send, in process: make fuzz CASES=100000
	PROPTEST_CASES=$(CASES) cargo nextest run --locked --release -p gantry-controller -E 'test(/api_arbitrary/) | test(/::properties::/) | test(/::arbitrary_schemas::/)'

fuzz-openapi: ## Schemathesis on a live controller, each OpenAPI document: make fuzz-openapi OPENAPI_SECONDS=240
	@e2e/scripts/schemathesis.sh $(OPENAPI_SECONDS)

mutants: ## Plant twelve mistakes, one after the other, and say which level of tests catches each
	@e2e/scripts/mutants.sh $(MUTANTS)

bench: ## How fast the API is on this machine, beside raw Postgres
	cargo build --locked --release --bins
	cargo run --locked --release -p gantry-e2e --bin gantry-bench

bench-audit: ## How long the first page of ten million audit events takes: make bench-audit EVENTS=1000000
	cargo build --locked --release --bins
	cargo run --locked --release -p gantry-e2e --bin gantry-bench -- audit --events $(EVENTS)

bench-fleet: ## What 10,000 simulated hosts with 200,000 containers cost: make bench-fleet AGENTS=2000
	cargo build --locked --release --workspace --bins
	cargo run --locked --release -p gantry-e2e --bin gantry-bench -- fleet checks --agents $(AGENTS)

bench-live: ## What looking into one real host costs, beside doing the same at its Docker socket
	cargo build --locked --release --workspace --bins
	cargo run --locked --release -p gantry-e2e --bin gantry-bench -- live

schemas: ## Write schemas/ anew from the types
	UPDATE_SCHEMAS=1 cargo nextest run --locked --workspace -E "package(gantry-api)"

fmt: ## Format the code
	cargo fmt --all

lint: ## Formatting, clippy, licences and dependencies
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	cargo deny --locked check bans licenses sources
	@for patch in e2e/mutants/*.patch; do git apply --check $$patch || { echo "hint: plant the same mistake in today's code"; exit 1; }; done
