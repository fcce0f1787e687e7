#!/usr/bin/env bash
# What the tests of deploy/observability need beside the project's own environment: Debian's prometheus, with promtool.
# Where it can't be had that is said, and they skip with the same words.
set -uo pipefail
cd "$(dirname "$0")/../.."
command -v prometheus >/dev/null && command -v promtool >/dev/null && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "Debian's prometheus is not installed, and this user can't: the tests that need it will skip"
  exit 0
fi
mkdir -p .cache
# Installed, not started: the tests run a server of their own, on a free port, and end it.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod +x $policy
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends prometheus; } \
  >.cache/prometheus-apt.log 2>&1 ||
  echo "Debian's prometheus can't be installed (.cache/prometheus-apt.log): the tests that need it will skip"
