#!/usr/bin/env bash
# The suites' packages, by hash, into .cache/conformance; what can't be had is said, and its suites are skipped.
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"
cache="$root/.cache/conformance"
mkdir -p "$cache/node"
if ! cmp -s "$here/requirements.lock" "$cache/installed.lock"; then
  rm -rf "$cache/venv" "$cache/installed.lock"
  "$root/.venv/bin/uv" venv -q --python "$root/.venv/bin/python" "$cache/venv" &&
    "$root/.venv/bin/uv" pip sync -q --python "$cache/venv/bin/python" --require-hashes "$here/requirements.lock" &&
    cp "$here/requirements.lock" "$cache/installed.lock" ||
    { rm -rf "$cache/venv"; echo "conformance: the Python packages can't be installed"; }
fi
if ! command -v npm >/dev/null; then
  echo "conformance: npm is not installed"
elif ! cmp -s "$here/node/package-lock.json" "$cache/node/installed.json"; then
  cp "$here"/node/package.json "$here"/node/package-lock.json "$cache/node/" &&
    (cd "$cache/node" && timeout 300 npm ci --silent --no-audit --no-fund --ignore-scripts --fetch-retries 1 --fetch-timeout 60000) &&
    cp "$here/node/package-lock.json" "$cache/node/installed.json" ||
    { rm -rf "$cache/node/node_modules"; echo "conformance: the npm packages can't be installed"; }
fi
cp "$here/node/openai_node.mjs" "$cache/node/"
