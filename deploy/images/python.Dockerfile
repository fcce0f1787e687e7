# One recipe for every program here; they differ in what their folder of wheels holds. `make images` prepares that: the
# wheels are fetched outside, by hash, so nothing is downloaded in a build and no index stands in an image.
ARG BASE_IMAGE=docker.io/library/python:3.13.9-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG MODULE
COPY requirements.txt /build/
COPY wheels /build/wheels
# pip works from outside the environment that is copied, so that it is not in it.
RUN python -m venv /build/tools \
  && python -m venv --without-pip /opt/stream \
  && /build/tools/bin/pip --python /opt/stream/bin/python install --no-cache-dir --no-index --find-links /build/wheels \
    --require-hashes --requirement /build/requirements.txt \
  && /build/tools/bin/pip --python /opt/stream/bin/python install --no-cache-dir --no-index --no-deps /build/wheels/stream_*.whl \
  && printf '#!/bin/sh\nexec python -m %s "$@"\n' "${MODULE}" > /opt/stream/bin/program \
  && chmod 0755 /opt/stream/bin/program

# What only a package manager, a builder or a person at a shell would use goes.
FROM ${BASE_IMAGE} AS slim
RUN rm -rf /usr/local/lib/python3*/site-packages/pip* /usr/local/bin/pip* /usr/share/python-wheels \
    /usr/local/lib/python3*/ensurepip /usr/lib/python3*/ensurepip \
    /usr/local/lib/python3*/idlelib /usr/local/lib/python3*/pydoc_data /usr/local/lib/python3*/turtledemo \
    /usr/lib/*-linux-gnu/perl-base /usr/bin/perl* /usr/lib/*-linux-gnu/gconv \
    /usr/lib/apt /usr/bin/apt* /usr/lib/*-linux-gnu/libapt-* /var/lib/apt /var/cache/apt \
    /usr/share/doc /usr/share/man /usr/share/locale /usr/share/perl*

# From nothing, so that what went is gone from every layer; the rule that warns of this has no other way to that.
FROM scratch
# hadolint ignore=DL3067
COPY --from=slim / /
COPY --from=build /opt/stream /opt/stream
ENV PATH=/opt/stream/bin:/usr/local/bin:/usr/bin:/bin \
  LANG=C.UTF-8 \
  PYTHONDONTWRITEBYTECODE=1 \
  PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["program"]
