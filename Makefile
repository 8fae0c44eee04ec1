# drainit: `make demo` and `make test` are the whole set-up on a Debian machine with Rust.

HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
TARGET_DIR := target
RELEASE := $(TARGET_DIR)/$(HOST)/release

# A RUSTFLAGS of yours replaces the one in .cargo/config.toml, which makes the binary static.
# `override`, for `make RUSTFLAGS=...`; `origin`, because an empty one replaces it too.
ifneq ($(origin RUSTFLAGS),undefined)
override RUSTFLAGS += -C target-feature=+crt-static
export RUSTFLAGS
endif
unexport CARGO_ENCODED_RUSTFLAGS
export CARGO_BUILD_TARGET = $(HOST)
export CARGO_TARGET_DIR = $(abspath $(TARGET_DIR))

.PHONY: help build demo test bench image dist reproducible deps clean kubernetes-images kubernetes-test kind-test dist/drainit

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

build: dist/drainit ## the static, stripped binary, in dist/drainit

dist/drainit:
	@tests/deps build
	@mkdir -p dist
	cargo build --release --locked --bin drainit
	install -m 755 $(RELEASE)/drainit $@
	@! readelf -lW $@ | grep -q INTERP || { echo '$@ is not static' >&2; rm -f $@; exit 1; }

demo: build ## a pool under load: a worker killed, the pool resized, a drain; every request counted
	cargo build --release --locked --quiet --example demo --example server
	$(RELEASE)/examples/demo dist/drainit

# The folder in which cargo keeps the sources of dependencies is in what a panic would say.
CARGO_FOLDER = $(or $(CARGO_HOME),$(HOME)/.cargo)
REMAP = --config 'target."$(HOST)".rustflags=["--remap-path-prefix=$(CARGO_FOLDER)=/cargo"]'

dist: ## a release for this architecture in dist/release: binary, image, SBOM, checksums
	@tests/deps build
	cargo build --release --locked --bin drainit $(REMAP)
	@mkdir -p dist
	install -m 755 $(RELEASE)/drainit dist/drainit
	deploy/release/pack dist/release

reproducible: ## that a release comes out the same twice
	deploy/release/twice

test: ## everything: format, lints, docs, unit, simulation, integration and container tests
	@tests/deps test
	tests/run

kubernetes-test: ## rollouts under load on the cluster that KUBECONFIG names; its nodes have the images
	tests/kubernetes/run

kubernetes-images: build ## the images for it, as archives in target/kubernetes
	@tests/deps test
	tests/kubernetes/images

kind-test: build ## the same on a cluster that kind makes, and that is deleted then
	tests/kubernetes/kind

bench: build ## ratios against tini and dumb-init, Node cluster and PM2
	@tests/deps bench
	DRAINIT_UNDER_TEST=$(abspath dist/drainit) cargo bench --locked --bench cost

deps: ## what all of these need, by apt and, for the chart's tests, pip
	@tests/deps build test bench

clean:
	rm -rf dist $(TARGET_DIR)

# `make image`: drainit alone in an image.

CONTAINER_ENGINE ?= $(firstword $(foreach engine,podman docker,$(shell command -v $(engine))))
IMAGE ?= drainit:dev
# A stage of the Dockerfile. host: dist/drainit as it is; source: compiled in a Rust image, which has to be pulled.
IMAGE_SOURCE ?= host
IMAGE_VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
IMAGE_REVISION ?= $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)

podman = $(filter podman,$(notdir $(CONTAINER_ENGINE)))
# crun, podman's default, refuses to start a RUN where the cgroup hierarchy is hybrid.
needs_runc = $(and $(podman),$(filter-out host,$(IMAGE_SOURCE)),$(wildcard /sys/fs/cgroup/unified))
# buildah 1.28 takes a label from its cache, whatever the build argument in it says now.
image_options = $(if $(podman),--layers=false) $(if $(needs_runc),--runtime=runc)

image: $(if $(filter host,$(IMAGE_SOURCE)),build) ## drainit:dev, an image that holds the binary and nothing else
	@[ -n '$(CONTAINER_ENGINE)' ] || { \
	  echo 'make image: neither podman nor docker is here; on Debian: apt-get install podman runc' >&2; exit 1; }
	@[ '$(IMAGE_SOURCE)' != host ] || [ -x dist/drainit ] || { \
	  echo 'make image: no dist/drainit, which `make build` should have left' >&2; exit 1; }
	@[ -z '$(needs_runc)' ] || command -v runc >/dev/null || { \
	  echo 'make image: the cgroups of this host are hybrid, which crun refuses: apt-get install runc' >&2; exit 1; }
	$(CONTAINER_ENGINE) build $(image_options) --target $(IMAGE_SOURCE) --tag $(IMAGE) \
	  --build-arg VERSION=$(IMAGE_VERSION) --build-arg REVISION=$(IMAGE_REVISION) .
