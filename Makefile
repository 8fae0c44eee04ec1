# drainit: `make demo` and `make test` are the whole set-up on a Debian machine with Rust.

HOST := $(shell rustc -vV | sed -n 's/^host: //p')
TARGET_DIR := target
RELEASE := $(TARGET_DIR)/$(HOST)/release

# A RUSTFLAGS of yours replaces the one in .cargo/config.toml, which makes the binary static.
ifdef RUSTFLAGS
export RUSTFLAGS += -C target-feature=+crt-static
endif
export CARGO_BUILD_TARGET = $(HOST)
export CARGO_TARGET_DIR = $(abspath $(TARGET_DIR))

.PHONY: help build demo test bench deps clean dist/drainit

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

build: dist/drainit ## the static, stripped binary, in dist/drainit

dist/drainit: | dist
	@tests/deps build
	cargo build --release --locked --bin drainit
	install -m 755 $(RELEASE)/drainit $@

dist:
	mkdir -p dist

demo: build ## a pool under load: a worker killed, the pool resized, a drain; every request counted
	cargo build --release --locked --quiet --example demo --example server
	$(RELEASE)/examples/demo dist/drainit

test: ## everything: format, lints, docs, unit, simulation, integration and container tests
	@tests/deps test
	tests/run

bench: build ## ratios against tini and dumb-init
	@tests/deps bench
	DRAINIT_UNDER_TEST=$(abspath dist/drainit) cargo bench --locked

deps: ## what all of these need, by apt
	@tests/deps build test bench

clean:
	rm -rf dist $(TARGET_DIR)

include image.mk
