# The shipped image: the daemon with every back end, as a user without rights, on a slim base.
#   docker build -t orchestrator .
#   docker run -v orchestrator:/data -p 7700:7700 -p 7701:7701 orchestrator
FROM rust:1.95-slim-bookworm AS build
# g++ and make build the Kafka client.
RUN apt-get update && apt-get install -y --no-install-recommends g++ make pkg-config zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --profile dist --locked --package orchestrator --features cluster \
    && cp target/dist/orchestrator /usr/local/bin/

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data orchestrator && install -d -o 10001 -g 10001 -m 0700 /data /settlement
COPY --from=build /usr/local/bin/orchestrator /usr/local/bin/orchestrator
USER 10001
WORKDIR /data
VOLUME /data
# Huge pages would make each of many threads' heaps 2 MB at once; where the kernel gives them to all, the allocator declines.
ENV MIMALLOC_ALLOW_THP=0
# Inside a container the loopback address reaches nobody.
ENV ORCHESTRATOR_DATA__DIR=/data \
    ORCHESTRATOR_LOG__FORMAT=json \
    ORCHESTRATOR_API__LISTEN=0.0.0.0:7700 \
    ORCHESTRATOR_PROVIDER__S3_LISTEN=0.0.0.0:7701
EXPOSE 7700 7701
ENTRYPOINT ["orchestrator"]
CMD ["run"]
