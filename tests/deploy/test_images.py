"""`make images`, as far as it goes without a builder: clean Dockerfiles, what goes in, the bill of materials."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "deploy" / "images"
HADOLINT = ROOT / ".cache" / "deploy" / "bin" / "hadolint"
DEBIAN = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
DOCKERFILES = sorted(IMAGES.glob("*.Dockerfile"))
sys.path.append(str(IMAGES))

import build  # noqa: E402  (scripts of a folder, not a package)
import locked  # noqa: E402
import sbom  # noqa: E402


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint(path):
    """No warning."""
    if not HADOLINT.exists():
        pytest.skip("hadolint is not installed; `make test-deploy` does that")
    told = subprocess.run([HADOLINT, path], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_shape(path):
    """Several stages from a pinned base; the last one is nobody's with the manifests' id, and builds nothing."""
    text = path.read_text()
    assert re.search(r"^ARG BASE_IMAGE=\S+:\d+\.\d+\.\d+\S*$", text, re.MULTILINE)
    assert text.count("\nFROM ") >= 2
    last = text.rpartition("\nFROM ")[2]
    assert "USER 10001:10001" in last
    assert not re.search(r"\b(pip|uv|apt-get|gcc|make) install\b", last)


@pytest.mark.parametrize("python", ["3.11", "3.13"])
@pytest.mark.parametrize("image", build.IMAGES)
def test_an_image_holds_what_its_programs_need(image, python):
    """Everything is in the lock with hashes; tools, other programs' parts and gRPC at the relay are not."""
    module, programs = build.IMAGES[image]
    names = locked.needed(programs, python=python)
    text = locked.subset(ROOT / "requirements.lock", programs, python=python)
    assert all(re.search(rf"^{re.escape(name)}==.*(\\\n\s+--hash=sha256:)", text, re.MULTILINE) for name in names)
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    valid = [Requirement(line.rstrip(" \\")) for line in text.splitlines() if "==" in line]
    assert names <= {each.name for each in valid if each.marker is None or each.marker.evaluate(environment)}
    assert not names & {"pytest", "ruff", "mypy", "hatchling", "uv", "hypothesis"}
    assert ("grpcio" in names) == (image not in {"relay", "nats"})
    assert bool(module) == (image != "nats")


def test_the_images_are_those_of_the_manifests():
    """Each name that a manifest runs is built."""
    wanted = set()
    for path in (ROOT / "deploy" / "k8s").rglob("*.yaml"):
        wanted |= set(re.findall(r"image: stream-([a-z-]+)", path.read_text()))
    assert {name.replace("-", "_") for name in wanted} - {"postgres"} == set(build.IMAGES)


def test_the_bill_of_materials():
    """Python's distributions with purl and licence, Debian's packages that are installed."""
    listing = json.dumps(
        [
            [["Uvloop", "0.23.0", "MIT"], ["stream_core", "0.1.0", ""]],
            DEBIAN,
        ]
    )
    bill = sbom.bill("stream/relay", "0.1.0", listing, {"uvloop": ["ab"]})
    assert [each["purl"] for each in bill["components"]] == [
        "pkg:pypi/uvloop@0.23.0",
        "pkg:pypi/stream-core@0.1.0",
        "pkg:deb/debian/libc6@2.36-9?arch=amd64",
    ]
    assert bill["components"][0]["licenses"] == [{"expression": "MIT"}]
    assert bill["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "ab"}]
