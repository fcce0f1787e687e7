"""`make images`, as far as it goes without a builder: clean Dockerfiles, what goes in, what is taken out."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "deploy" / "images"
HADOLINT = ROOT / ".cache" / "deploy" / "bin" / "hadolint"
DOCKERFILES = sorted(IMAGES.glob("*.Dockerfile"))
sys.path.append(str(IMAGES))

import build  # noqa: E402  (scripts of a folder, not a package)
import lend  # noqa: E402
import locked  # noqa: E402
import trim  # noqa: E402


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
    pinned = re.findall(r"^ARG (?:BASE|BUILD)_IMAGE=(\S+:\d+\.\d+\.\d+)\S*$", text, re.MULTILINE)
    assert pinned
    assert len(set(pinned)) == 1
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
    given = [Requirement(line.rstrip(" \\")) for line in text.splitlines() if "==" in line]
    assert {each.name for each in given} == names
    assert len(given) == len(names)
    assert not any(each.marker for each in given)  # pip asks them of the Python that fetches, not of the image's
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    lock = re.findall(r"^[\w.-]+==[^\\\n]+", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    markers = {(each.name, str(each.specifier)): each.marker for each in map(Requirement, lock)}
    chosen = [markers[each.name, str(each.specifier)] for each in given]
    assert all(marker is None or marker.evaluate(environment) for marker in chosen)
    assert not names & {"pytest", "ruff", "mypy", "hatchling", "uv", "hypothesis"}
    assert ("grpcio" in names) == (image not in {"relay", "nats"})
    assert bool(module) == (image != "nats")


def test_the_images_are_those_of_the_manifests():
    """Each name that a manifest runs is built."""
    wanted = set()
    for path in (ROOT / "deploy" / "k8s").rglob("*.yaml"):
        wanted |= set(re.findall(r"image: stream-([a-z-]+)", path.read_text()))
    assert {name.replace("-", "_") for name in wanted} - {"postgres"} == set(build.IMAGES)


def test_tokenizers_do_without_a_hub():
    """What is left out of the image is not imported: a tokenizer is loaded and counts while it can't be."""
    program = f"""
import sys
sys.modules.update({{name.replace("-", "_"): None for name in {sorted(locked.UNUSED)!r}}})
from tokenizers import Tokenizer, models, pre_tokenizers
made = Tokenizer(models.WordLevel({{"a": 0, "?": 1}}, unk_token="?"))
made.pre_tokenizer = pre_tokenizers.Whitespace()
print(Tokenizer.from_str(made.to_str()).encode("a b").ids)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert told.stdout == "[0, 1]\n", told.stderr


def test_what_is_taken_out_of_an_environment(tmp_path):
    """Others' tests, sources and types go, ours stay; a shared object is smaller and still loads."""
    packages = tmp_path / "lib" / "python3.13" / "site-packages"
    kept = ("other/__init__.py", "other/data.json", "stream_core/tests/sample.py", "stream_core/kept.pyi")
    gone = ("other/tests/test_it.py", "other/deep/test/test_it.py", "other/fast.pyx", "other/fast.h", "other/it.pyi")
    for name in (*kept, *gone):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).touch()
    if found := shutil.which("strip"):
        yaml = next((ROOT / ".venv").glob("lib/python3*/site-packages/yaml/_yaml*.so"))
        shutil.copy2(yaml, packages / "other" / yaml.name)
    trim.trim_environment(tmp_path)
    left = {str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file() and path.suffix != ".so"}
    assert left == set(kept)
    if not found:
        pytest.skip("binutils are not installed: nothing was stripped")
    assert (packages / "other" / yaml.name).stat().st_size < yaml.stat().st_size
    load = "import ctypes, os, sys; ctypes.CDLL(sys.argv[1], os.RTLD_NOW)"
    subprocess.run([sys.executable, "-c", load, packages / "other" / yaml.name], check=True)


def test_only_a_copy_is_trimmed():
    """This machine's own root is refused, however it is written."""
    for root in ("/", "/usr/..", "//"):
        with pytest.raises(SystemExit, match="no copy"):
            trim.trim_base(Path(root))


@pytest.mark.skipif(not (shutil.which("readelf") and shutil.which("dpkg-query")), reason="binutils and dpkg are needed")
def test_a_library_that_the_base_lacks(tmp_path):
    """It is copied with what it links in turn, its package stands in the image's list with its licence; once."""
    environment, base = tmp_path / "environment", tmp_path / "base"
    environment.mkdir()
    shutil.copy2(next((ROOT / ".venv").glob("lib/python3*/site-packages/yaml/_yaml*.so")), environment)
    status = base / "var" / "lib" / "dpkg" / "status"
    status.parent.mkdir(parents=True)
    status.write_text("Package: base-files\nStatus: install ok installed\nVersion: 1\n\n")
    with pytest.raises(SystemExit, match=r"lend: lib\S+ is needed, and neither image has it"):
        lend.lend(environment, base, source=tmp_path)
    lent = lend.lend(environment, base)
    assert "libc.so.6" in lent
    assert {path.name for path in base.rglob("*.so*")} == set(lent)
    assert re.findall(r"^Package: (\S+)$", status.read_text(), re.MULTILINE) == ["base-files", "libc6"]
    assert (base / "usr" / "share" / "doc" / "libc6" / "copyright").exists()
    assert lend.lend(environment, base) == []


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("dpkg-deb"), reason="root and dpkg are needed")
def test_scripts_of_packages_run_inside_the_copy(tmp_path, monkeypatch):
    """What a package's script removes as it is purged is the copy's file, never this machine's of the same name."""
    copy, outside = tmp_path / "copy", tmp_path / "outside"
    package = tmp_path / "package" / "DEBIAN"
    package.mkdir(parents=True)
    (package / "control").write_text(
        "Package: sample\nVersion: 1\nArchitecture: all\nMaintainer: none <none@example.org>\nDescription: sample\n"
    )
    (package / "postrm").write_text(f"#!/bin/sh\n: > {outside}\n")
    (package / "postrm").chmod(0o755)
    for folder in ("var/lib/dpkg/info", "var/lib/dpkg/updates"):
        (copy / folder).mkdir(parents=True)
    (copy / "var/lib/dpkg/status").touch()
    subprocess.run(("dpkg-deb", "--build", package.parent, tmp_path / "sample.deb"), check=True, capture_output=True)
    install = ("dpkg", f"--root={copy}", "--force-script-chrootless", "--install", tmp_path / "sample.deb")
    subprocess.run(install, check=True, capture_output=True)
    monkeypatch.setattr(trim, "PACKAGES", {"a sample": "sample"})
    # The copy has no shell, so a script that is kept inside it can't run: dpkg says so and fails.
    with pytest.raises(subprocess.CalledProcessError):
        trim.trim_base(copy)
    assert not outside.exists()
