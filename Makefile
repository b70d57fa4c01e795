# Turnpike's commands. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo demo-stop test check netns packaging fuzz bench man image install deps root

# Where rustup puts cargo, and where Debian keeps administrators' programs: sudo and CI forget them.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin
# Messages and numbers of the programs that the tests read are in English, whatever the user's are.
export LC_ALL := C.UTF-8
# The gateway stays after the demonstration with KEEP=1.
KEEP ?=
# Seconds for each fuzz target, and which of them.
TIME ?= 600
TARGETS ?= parser engine config host capture
# How much `make bench` measures: neither, or one of them; and whether it counts the cycles of each stage.
QUICK ?=
FULL ?=
STAGES ?=
# What stands between the hosts: turnpike, or kernel (the rig's own check: the same table against Linux).
GATEWAY ?= turnpike
# Where `make install` puts things, and below what directory for the time being.
PREFIX ?= /usr/local
DESTDIR ?=
# Where the programs are that it installs; it builds them if this is not set.
BIN ?=
PROGRAMS := $(notdir $(wildcard control/src/bin/*))
# Whatever builds images here: the first of these that is there and works.
BUILDER = $(firstword $(foreach it,podman buildah docker,$(if $(shell $(it) info >/dev/null 2>&1 && echo yes),$(it))))
IMAGE ?= turnpike

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: root deps ## real clients through a real gateway, in network namespaces (KEEP=1 leaves it running)
	$(if $(filter turnpike,$(GATEWAY)),cargo build --release --locked --bin turnpike --bin turnpikectl)
	python3 tests/netns/demo.py --binary target/release/turnpike --gateway $(GATEWAY) $(if $(KEEP),--keep)

demo-stop: root ## ends what `make demo KEEP=1` left running
	python3 tests/netns/demo.py --stop

test: root deps check netns packaging ## everything CI runs (as root)

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

packaging: root deps ## tests of the systemd units, of the image, and on older processors (as root)
	cargo build --locked --workspace --bin turnpike --bin turnpikectl --test run
	python3 tests/packaging/processor.py --programs target/debug
	python3 tests/packaging/units.py --programs target/debug
	python3 tests/packaging/image.py --programs target/debug

# cargo-fuzz wants a nightly compiler; RUSTC_BOOTSTRAP makes do with a stable one. What is found anew goes to target/fuzz-corpus,
# what fails to target/fuzz-artifacts.
fuzz: deps ## runs each fuzz target for TIME=600 seconds, or those in TARGETS (needs: cargo install cargo-fuzz --locked)
	for target in $(TARGETS); do \
		mkdir -p target/fuzz-corpus/$$target target/fuzz-artifacts/$$target; \
		RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none $$target \
			target/fuzz-corpus/$$target tests/fuzz/corpus/$$target -- -max_total_time=$(TIME) -timeout=10 \
			-rss_limit_mb=2048 -artifact_prefix=target/fuzz-artifacts/$$target/; \
	done

bench: deps ## measures engine and gateway (see perf/README.md; QUICK=1 to see that it works, FULL=1 for everything, STAGES=1)
	STAGES='$(STAGES)' perf/run $(if $(QUICK),--quick) $(if $(FULL),--full)

man: ## manual pages of both programs, in target/man
	cargo build --locked --bin turnpike --bin turnpikectl
	mkdir -p target/man
	target/debug/turnpike man target/man
	target/debug/turnpikectl man target/man

image: ## the container image, by podman, buildah or docker (IMAGE=name)
	@test -n "$(BUILDER)" || { echo "make image: needs podman, buildah or docker with its daemon running; on Debian:" \
	"apt-get install buildah" >&2; exit 1; }
	$(if $(filter docker,$(BUILDER)),DOCKER_BUILDKIT=1 docker build,$(BUILDER) build --format docker \
	--ignorefile docker/Dockerfile.dockerignore) $(IMAGE_OPTIONS) -f docker/Dockerfile -t $(IMAGE) .

install: ## programs, manual pages, units and examples (PREFIX, DESTDIR; BIN=directory of programs that are built already)
	$(if $(BIN),,cargo build --release --locked $(addprefix --bin ,$(PROGRAMS)))
	install -D -m 755 -t '$(DESTDIR)$(PREFIX)/bin' $(addprefix $(or $(BIN),target/release)/,$(PROGRAMS))
	install -d '$(DESTDIR)$(PREFIX)/share/man/man1' '$(DESTDIR)$(PREFIX)/share/bash-completion/completions'
	for program in $(PROGRAMS); do '$(DESTDIR)$(PREFIX)/bin/'$$program man '$(DESTDIR)$(PREFIX)/share/man/man1'; done
	'$(DESTDIR)$(PREFIX)/bin/turnpikectl' completions bash \
	>'$(DESTDIR)$(PREFIX)/share/bash-completion/completions/turnpikectl'
	install -D -m 755 -t '$(DESTDIR)$(PREFIX)/libexec/turnpike' configs/systemd/bind
	install -D -m 644 -t '$(DESTDIR)$(PREFIX)/lib/systemd/system' configs/systemd/*.service
	sed -i 's|/usr/local/|$(PREFIX)/|g' '$(DESTDIR)$(PREFIX)'/lib/systemd/system/turnpike*.service
	install -D -m 644 configs/systemd/sysusers.conf '$(DESTDIR)$(PREFIX)/lib/sysusers.d/turnpike.conf'
	install -D -m 644 configs/systemd/sysctl.conf '$(DESTDIR)$(PREFIX)/lib/sysctl.d/80-turnpike.conf'
	install -D -m 644 configs/systemd/modules-load.conf '$(DESTDIR)$(PREFIX)/lib/modules-load.d/turnpike.conf'
	install -D -m 644 configs/systemd/udev.rules '$(DESTDIR)$(PREFIX)/lib/udev/rules.d/70-turnpike.rules'
	install -D -m 644 -t '$(DESTDIR)$(PREFIX)/share/doc/turnpike' README.md CHANGELOG.md LICENSE-* docs/*.md
	install -D -m 644 -t '$(DESTDIR)$(PREFIX)/share/doc/turnpike/examples' configs/*.yaml

deps:
	@tests/dependencies.sh

root:
	@test "$$(id -u)" = 0 || { echo "make $(MAKECMDGOALS): needs root, for network namespaces (try sudo)" >&2; exit 1; }
