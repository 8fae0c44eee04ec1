# drainit, alone in an image: to copy from (COPY --from=drainit /drainit /drainit), to build on, or to run its
# subcommands (as an initContainer: `install PATH`).
#
#   docker build -t drainit .                 compiles in a Rust image
#   docker build -t drainit --target host .   takes dist/drainit (`make build`); pulls nothing
#
# A target, and no ARG in a FROM: buildah 1.28 (podman 4.3) drops the stage that an argument's default names. `host`
# comes first, so that a builder which takes the stages one after the other reaches it without the Rust image.

ARG RUST=1.95

FROM scratch AS base
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="drainit" \
      org.opencontainers.image.description="PID 1 for containers: init, worker pool on shared sockets, drain and probes in one static binary" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Without a `--`: that would turn `run drainit status` into a pool of workers named status. An image built on this
# one names its server in CMD ["--", "/server"]. No USER: the server's image decides.
ENTRYPOINT ["/drainit"]

FROM base AS host
COPY dist/drainit /drainit

FROM docker.io/library/rust:${RUST}-bookworm AS build
WORKDIR /src
COPY . .
# `install`, because the path in target/ depends on the architecture. .cargo/config.toml makes it static.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo install --locked --path . --root /out

FROM base AS source
COPY --from=build /out/bin/drainit /drainit
