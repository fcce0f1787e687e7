#!/usr/bin/env bash
# What `make test-hpc` needs beside the project's own environment: Debian's Slurm and RabbitMQ, and the environments
# of programs that do not share ours (environments/<name>.lock, hash-pinned, each into .cache/hpc/<name>).
# What can't be installed here is said, and the tests that need it skip with the same words.
set -euo pipefail
cd "$(dirname "$0")/../.."
packages=(munge slurm-wlm slurmctld slurmd rabbitmq-server)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # Installed, not started: the tests run daemons of their own, on free ports, and end them.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
      printf '#!/bin/sh\nexit 101\n' >$policy
      chmod +x $policy
      trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    apt-get update -q >.cache/apt.log 2>&1 || { cat .cache/apt.log; exit 1; }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >.cache/apt.log 2>&1 ||
      { cat .cache/apt.log; exit 1; }
  else
    echo "not installed, and this user can't: ${missing[*]}; the tests that need them will skip"
  fi
fi

# Real vLLM, about 900 MB: hash-pinned but for torch, whose CPU build pip takes from where this machine offers it
# (its `find-links` or `extra-index-url`; uv does not read those of pip).
install_vllm() {
  local lock=tests/hpc/vllm/requirements.lock place=.cache/hpc/vllm torch=torch==2.13.0+cpu
  cmp -s "$lock" "$place/installed" && return
  if [ "$(uname -sm)" != 'Linux x86_64' ] || ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
    echo "vLLM is locked for Linux x86-64 and Python 3.11; the tests that need it will skip"
    return
  fi
  rm -rf "$place"
  .venv/bin/uv venv -q --seed "$place"
  if "$place/bin/python" -m pip install -q --disable-pip-version-check --no-deps "$torch" &&
    .venv/bin/uv pip install -q --python "$place/bin/python" --no-deps --require-hashes -r "$lock"; then
    cp "$lock" "$place/installed"
  else
    rm -rf "$place"
    echo "vLLM can't be installed: $torch or a package of $lock is not to be had; the tests that need it will skip"
  fi
}
install_vllm

for lock in tests/hpc/environments/*.lock; do
  [ -e "$lock" ] || continue
  place=.cache/hpc/$(basename "$lock" .lock)
  if ! cmp -s "$lock" "$place/installed"; then
    rm -rf "$place"
    .venv/bin/uv venv -q "$place"
    .venv/bin/uv pip sync -q --python "$place/bin/python" --require-hashes "$lock"
    cp "$lock" "$place/installed"
  fi
done
