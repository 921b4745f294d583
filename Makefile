# The commands of this project. `make` lists them.
#
# SWIFT_FLAGS  extra flags for every swift command, for example "-j 2"
# ARGS         arguments for the harness (demo, sale), the attack (attack) or for swift test (test)
# INSTANCES    how many product and order servers (up)
# CELLS        how many cells of product servers, each with a Redis and a database of its own (up, at its first start)
# TOPOLOGY     single, sentinel (Redis that fails over), cluster (Redis Cluster), or ha: PostgreSQL with a synchronous standby, three nodes of the broker, two of each server (demo; up, at its first start)

SHELL := /bin/bash
SWIFT_FLAGS ?=
ARGS ?=
SWIFT_SOURCES := Sources Tests Benchmarks Tools Package.swift
export SWIFT_FLAGS

.DEFAULT_GOAL := help
.PHONY: help install build demo up down status sale test test-ha lint format bench profile breaker soak attack fuzz failovers compare simulate mutants picture clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

demo: ## sell out a hot product while Redis dies and comes back, then audit (TOPOLOGY=ha: while Redis' master, PostgreSQL's primary and a node of the broker die)
	@scripts/demo $(ARGS)

up: ## build and start everything; Ctrl-C or make down stops it (INSTANCES=2: two of each server; TOPOLOGY=sentinel, cluster or ha: stores of several servers; CELLS=2: two cells of product servers)
	@scripts/up

down: ## stop what make up started
	@scripts/stack stop

status: ## a table of the servers
	@scripts/stack status

sale: ## run the load-test harness against what is up (ARGS="--units 5000 …")
	@scripts/sale $(ARGS)

test: ## install, build and run all tests
	@scripts/test $(ARGS)

test-ha: ## run the long failovers of stores that are clusters (ARGS="--skip …")
	@scripts/test --filter 'SystemTests.HighAvailability' $(ARGS)

lint: ## check the format of the sources and, where shellcheck is there, the scripts
	swift format lint --strict --parallel -r $(SWIFT_SOURCES)
	@if command -v shellcheck >/dev/null; then cd scripts && shellcheck -x stack move-product demo up sale test failovers bench profile breaker soak attack compare picture lib/*.sh ../.ci/run ../Tests/scripts/*.sh ../Tests/scripts/lib/*.sh; \
	else echo "shellcheck is not installed: the scripts are not checked"; fi

format: ## format the sources
	swift format --in-place --parallel -r $(SWIFT_SOURCES)

bench: ## run the micro-benchmarks
	@scripts/bench $(ARGS)

profile: ## draw flame graphs of both servers under orders, and list what costs most in each process (ARGS="FOLDER")
	@scripts/profile $(ARGS)

FAULT ?= slow
breaker: ## print what the breaker does when Redis fails (FAULT=kill|pause|slow)
	@scripts/breaker $(FAULT)

soak: ## ten minutes of load with an outage of a store each minute: books, memory, descriptors (ARGS="--seconds 60")
	@scripts/soak $(ARGS)

failovers: ## kill every kind of server in every topology under a sale, and print the table of docs/faults.md (ARGS="ha")
	@scripts/failovers $(ARGS)

attack: ## send both servers and the gateway what no careful client sends (ARGS="--short")
	@scripts/attack $(ARGS)

# Debug: there the arithmetic is checked, and the readers can be looked into.
SECONDS ?= 60
fuzz: install ## give every reader of bytes from outside odd bytes (SECONDS=600 for each)
	swift build --product fuzz $(SWIFT_FLAGS)
	swift run --skip-build $(SWIFT_FLAGS) fuzz --seconds $(SECONDS) $(ARGS)

SEEDS ?= 100000
simulate: install ## explore every small and deep world, then run SEEDS simulations
	swift run -c release $(SWIFT_FLAGS) simulate --deep
	swift run -c release $(SWIFT_FLAGS) simulate --seeds $(SEEDS)

mutants: install ## switch each deliberate fault on and print what catches it
	swift run -c release $(SWIFT_FLAGS) simulate --mutants

compare: ## measure beside Go servers, nginx+Lua, webdis, Tarantool and pgbench: one table (ARGS="--quick")
	@scripts/compare $(ARGS)

picture: ## make docs/images/dashboard-open.png anew: the dashboard while Redis is dead under a sale (needs chromium)
	@scripts/picture

build: install ## build everything (release)
	swift build -c release $(SWIFT_FLAGS)

install: ## check what the machine needs; installs it when run by root
	@scripts/stack install

clean: ## stop all stacks, remove them and what was built
	@scripts/stack destroy
	@STACK_DIR=$(CURDIR)/.stack-demo scripts/stack destroy
	@STACK_DIR=$(CURDIR)/.stack-compare scripts/stack destroy
	@STACK_DIR=$(CURDIR)/.stack-breaker scripts/stack destroy
	@STACK_DIR=$(CURDIR)/.stack-attack scripts/stack destroy
	@STACK_DIR=$(CURDIR)/.stack-soak scripts/stack destroy
	@STACK_DIR=$(CURDIR)/.stack-failovers scripts/stack destroy
	@STACK_DIR=$(CURDIR)/.stack-picture scripts/stack destroy
	rm -rf .build .stack-demo.lock .stack-compare.lock .stack-breaker.lock .stack-attack.lock .stack-soak.lock .stack-failovers.lock
