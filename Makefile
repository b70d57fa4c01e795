# Turnpike's commands. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo demo-stop test check netns fuzz deps root bench man

# Where rustup puts cargo, and where Debian keeps administrators' programs: sudo and CI forget them.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin
# Messages and numbers of the programs that the tests read are in English, whatever the user's are.
export LC_ALL := C.UTF-8
# The gateway stays after the demonstration with KEEP=1.
KEEP ?=
# Seconds for each fuzz target, and which of them.
TIME ?= 600
TARGETS ?= parser engine config host capture
# What stands between the hosts: turnpike, or kernel (the rig's own check: the same table against Linux).
GATEWAY ?= turnpike

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: root deps ## real clients through a real gateway, in network namespaces (KEEP=1 leaves it running)
	$(if $(filter turnpike,$(GATEWAY)),cargo build --release --locked --bin turnpike --bin turnpikectl)
	python3 tests/netns/demo.py --binary target/release/turnpike --gateway $(GATEWAY) $(if $(KEEP),--keep)

demo-stop: root ## ends what `make demo KEEP=1` left running
	python3 tests/netns/demo.py --stop

test: root deps check netns ## everything CI runs (as root)

check: deps ## formatting, lints, tests without namespaces, licences, papers
	@if cargo fmt --version >/dev/null 2>&1; then set -x; cargo fmt --all --check; \
	else echo "cargo fmt is missing: formatting not checked"; fi
	@if cargo clippy --version >/dev/null 2>&1; then set -x; cargo clippy --locked --workspace --all-targets -- -D warnings; \
	else echo "cargo clippy is missing: lints not checked"; fi
	cargo test --locked --workspace
	python3 tests/licences.py
	python3 tests/papers.py
	python3 tests/schema.py

# The program that `cargo test` drives too: the same profile (overflow checks stay on) and, as a test is built beside it, the
# same features of every dependency, so nothing is compiled twice.
netns: root deps ## whole-program tests in network namespaces (as root)
	cargo build --locked --workspace --bin turnpike --bin turnpikectl --test run
	python3 tests/netns/tests.py --binary target/debug/turnpike --gateway $(GATEWAY)

# cargo-fuzz wants a nightly compiler; RUSTC_BOOTSTRAP makes do with a stable one. What is found anew goes to target/fuzz-corpus,
# what fails to target/fuzz-artifacts.
fuzz: deps ## runs each fuzz target for TIME=600 seconds, or those in TARGETS (needs: cargo install cargo-fuzz --locked)
	for target in $(TARGETS); do \
		mkdir -p target/fuzz-corpus/$$target target/fuzz-artifacts/$$target; \
		RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none $$target \
			target/fuzz-corpus/$$target tests/fuzz/corpus/$$target -- -max_total_time=$(TIME) -timeout=10 \
			-rss_limit_mb=2048 -artifact_prefix=target/fuzz-artifacts/$$target/; \
	done

bench: deps ## measures the engine (see perf/README.md)
	@test -x perf/run || { echo "perf/run does not exist yet" >&2; exit 1; }
	perf/run

man: ## manual pages of both programs, in target/man
	cargo build --locked --bin turnpike --bin turnpikectl
	mkdir -p target/man
	target/debug/turnpike man target/man
	target/debug/turnpikectl man target/man

deps:
	@tests/dependencies.sh

root:
	@test "$$(id -u)" = 0 || { echo "make $(MAKECMDGOALS): needs root, for network namespaces (try sudo)" >&2; exit 1; }
