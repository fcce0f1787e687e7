#!/usr/bin/env bash
# Bases of Debian's own packages, where no registry of images can be reached; needs root, debootstrap and buildah.
#   deploy/images/debian_base.sh && make images BASE_IMAGE=localhost/base:13 BUILD_IMAGE=localhost/base-build:13
# The release says which Python: PYTHON_VERSION=3.13 with trixie (13), 3.11 with bookworm (12).
set -euo pipefail
release="${RELEASE:-trixie}"
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT

commit() {  # commit FOLDER NAME
  local container
  container="$(buildah from scratch)"
  buildah add -q "$container" "$1" / >/dev/null
  buildah commit -q --rm "$container" "$2"
}

debootstrap --variant=minbase --include=ca-certificates,netbase,python-is-python3,python3-venv,tzdata "$release" "$place"
chroot "$place" apt-get clean
rm -rf "$place"/var/lib/apt/lists/*
number="$(. "$place/etc/os-release" && echo "$VERSION_ID")"
commit "$place" "localhost/base:$number"
chroot "$place" sh -c 'apt-get update -q && apt-get install -qy --no-install-recommends binutils libgomp1'
commit "$place" "localhost/base-build:$number"
