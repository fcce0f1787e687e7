#!/usr/bin/env bash
# The checkers' packages, by hash, into .cache/deploy; what can't be had is said, and its tests skip.
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"
place="$root/.cache/deploy"
cmp -s "$here/requirements.lock" "$place/installed" && exit 0
rm -rf "$place"
mkdir -p "$root/.cache"
"$root/.venv/bin/uv" venv -q --python "$root/.venv/bin/python" "$place" &&
  "$root/.venv/bin/uv" pip sync -q --python "$place/bin/python" --require-hashes "$here/requirements.lock" &&
  cp "$here/requirements.lock" "$place/installed" ||
  { rm -rf "$place"; echo "deploy: kubernetes-validate and hadolint can't be installed; the tests that need them skip"; }
