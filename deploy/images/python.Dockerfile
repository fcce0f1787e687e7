# One recipe for every program here; they differ in what their folder of wheels holds. `make images` prepares that: the
# wheels are fetched outside, by hash, so nothing is downloaded in a build and no index stands in an image.
ARG BASE_IMAGE=docker.io/library/python:3.13.9-slim-bookworm
# The same Python at the same place, with binutils; of this one nothing is in the image.
ARG BUILD_IMAGE=docker.io/library/python:3.13.9-bookworm

FROM ${BASE_IMAGE} AS base

FROM ${BUILD_IMAGE} AS build
COPY trim.py lend.py /build/
COPY --from=base / /build/base
RUN python /build/trim.py base /build/base
COPY requirements.txt /build/
COPY wheels /build/wheels
ARG MODULE
# pip works from outside the environment that is copied, so that it is not in it.
RUN python -m venv /build/tools \
  && python -m venv --without-pip /opt/stream \
  && /build/tools/bin/pip --python /opt/stream/bin/python install --no-cache-dir --no-index --no-deps \
    --find-links /build/wheels --require-hashes --requirement /build/requirements.txt \
  && /build/tools/bin/pip --python /opt/stream/bin/python install --no-cache-dir --no-index --no-deps /build/wheels/stream_*.whl \
  && python /build/trim.py environment /opt/stream \
  && python /build/lend.py /opt/stream /build/base \
  && printf '#!/bin/sh\nexec python -m %s "$@"\n' "${MODULE}" > /opt/stream/bin/program \
  && chmod 0755 /opt/stream/bin/program

# From nothing, so that what was taken out is in no layer. Two layers: the first is the same for all but the engine.
FROM scratch
COPY --from=build /build/base /
COPY --from=build /opt/stream /opt/stream
ENV PATH=/opt/stream/bin:/usr/local/bin:/usr/bin:/bin \
  LANG=C.UTF-8 \
  PYTHONDONTWRITEBYTECODE=1 \
  PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["program"]
