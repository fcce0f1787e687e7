"""What of requirements.lock a set of programs needs: their dependencies' dependencies, with hashes, for one Python."""

import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_ENTRY: Final = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)", re.MULTILINE)
OURS: Final = "stream-"
UNUSED: Final = frozenset({"huggingface-hub"})
"""Required, and never imported: `tokenizers` fetches vocabularies from a hub with it; ours are files."""


def read_lock(path: Path, *, python: str) -> dict[str, str]:
    """Read the lock's entries with their hashes, by canonical name, for Linux and one Python ("3.13").

    One name may stand there several times, each with a marker. The one that holds is given without it: pip would ask
    the Python that fetches, which need not be the image's.
    """
    text = path.read_text(encoding="utf-8")
    starts = list(_ENTRY.finditer(text))
    ends = [*(found.start() for found in starts[1:]), len(text)]
    entries: dict[str, str] = {}
    for found, end in zip(starts, ends, strict=True):
        line, _, hashes = text[found.start() : end].rstrip().partition("\n")
        requirement = Requirement(line.rstrip(" \\"))
        if requirement.marker is None or requirement.marker.evaluate(_environment(python)):
            entries[canonicalize_name(found["name"])] = f"{found[0]} \\\n{hashes}\n"
    return entries


def _environment(python: str) -> dict[str, str]:
    return {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}


def needed(programs: Iterable[str], *, python: str) -> set[str]:
    """Find all distributions that programs need on Linux, ours and the unused left out.

    Args:
        programs: requirements such as "stream-hpc-dispatch[globus]"; they are installed here.
        python: "3.13": whose markers count.
    """
    environment = _environment(python)
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(program) for program in programs]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in UNUSED:
            continue
        found.add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += _requirements(name, {**environment, "extra": extra})
    return {name for name in found if not name.startswith(OURS)}


def _requirements(name: str, environment: dict[str, str]) -> Iterator[Requirement]:
    try:
        told = distribution(name).requires or []
    except PackageNotFoundError:
        return  # for another platform or Python than this one's; the lock's own entry has the marker
    for text in told:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            yield requirement


def ours(programs: Iterable[str]) -> set[str]:
    """Find our own distributions among what programs need."""
    return {OURS + "core", *(canonicalize_name(Requirement(program).name) for program in programs)}


def subset(lock: Path, programs: Iterable[str], *, python: str) -> str:
    """Write a requirements file with hashes for programs.

    Raises:
        SystemExit: something that they need is not in the lock.
    """
    entries, wanted = read_lock(lock, python=python), needed(programs, python=python)
    if missing := sorted(wanted - entries.keys()):
        raise SystemExit(f"{lock} has no {', '.join(missing)}: run `make lock`")
    return "".join(entries[name] for name in sorted(wanted))


def main() -> None:
    """`locked.py PROGRAM...`: print the file, for the Python that vLLM's own image has."""
    sys.stdout.write(subset(Path(__file__).parents[2] / "requirements.lock", sys.argv[1:], python="3.12"))


if __name__ == "__main__":
    main()
