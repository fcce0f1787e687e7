"""Gives an image the system libraries that its wheels link and its base lacks, out of the build image.

`lend.py ENVIRONMENT BASE`, in the build stage of `python.Dockerfile`: wheels may count on libraries that a slim image
has not (OpenMP's, for llama.cpp). A library comes with its package's entry in dpkg's list, for scanners and the bill of
materials, and with its licence. It needs Python's own library, dpkg and binutils.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from trim import is_library

PLACES: Final = ("lib64", "lib", "usr/lib64", "usr/lib", "lib/*-linux-gnu", "usr/lib/*-linux-gnu", "usr/local/lib")
"""Where the loader looks, below a root."""
_NEEDED: Final = re.compile(r"\(NEEDED\).*\[(.+)\]")


def lend(environment: Path, base: Path, *, source: Path = Path("/")) -> list[str]:
    """Copy what is missing.

    Args:
        environment: whose shared objects are looked at.
        base: root of the image.
        source: root of the build image.

    Returns:
        The libraries' names.

    Raises:
        SystemExit: the build image lacks one, too.
    """
    own = {path.name for path in environment.rglob("*.so*")}
    lent: list[str] = []
    waiting = sorted(_needed(environment) - own)
    while waiting:
        name = waiting.pop()
        if _find(base, name) is not None:
            continue
        found = _find(source, name)
        if found is None:
            raise SystemExit(f"lend: {name} is needed, and neither image has it")
        place = base / found.parent.relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy2(found, place / name)
        _declare(found, base, source)
        lent.append(name)
        waiting += _linked(found)
    return lent


def _needed(environment: Path) -> set[str]:
    return {name for path in environment.rglob("*.so*") if is_library(path) for name in _linked(path)}


def _linked(path: Path) -> Iterator[str]:
    command = ("readelf", "-dW", path)
    yield from _NEEDED.findall(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _find(root: Path, name: str) -> Path | None:
    return next((path for place in PLACES for path in root.glob(f"{place}/{name}") if path.exists()), None)


def _declare(library: Path, base: Path, source: Path) -> None:
    """Name a library's package in the image's list, once, and bring its licence; one that is nobody's is let pass."""
    # dpkg knows a file by where it was unpacked, which a merged /usr does not tell.
    paths = {f"/{library.relative_to(source)}", f"/{library.resolve().relative_to(source.resolve())}"}
    command = ("dpkg-query", f"--root={source}", "--search", *paths, *(path.removeprefix("/usr") for path in paths))
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for package in sorted({line.partition(": ")[0] for line in told.splitlines()}):
        query = ("dpkg-query", f"--root={source}", "--status", package)
        entry = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
        status = base / "var" / "lib" / "dpkg" / "status"
        known = status.read_text()
        if entry not in known:
            status.write_text(f"{known.rstrip()}\n\n{entry}\n")
        name = package.partition(":")[0]
        licence = (source / "usr" / "share" / "doc" / name / "copyright").resolve()
        if licence.exists():
            target = base / "usr" / "share" / "doc" / name / "copyright"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(licence, target)


if __name__ == "__main__":
    print(*lend(Path(sys.argv[1]), Path(sys.argv[2])))
