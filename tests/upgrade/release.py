"""The sources of the release before this one, out of the repository's own history.

`previous` names its commit (`programs`), and that of the last gateway before the newest migration (`tables`): whoever
releases, or adds a migration, writes the new one there. Its programs run beside this tree's, in the same environment:
`PYTHONPATH` puts their code before ours.
"""

import io
import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PREVIOUS = Path(__file__).with_name("previous")
_PROGRAMS = ("core", "worker", "services/relay", "services/gateway", "services/hpc_dispatch")


@dataclass(frozen=True)
class Release:
    """A release, unpacked."""

    commit: str
    folder: Path

    @property
    def pythonpath(self) -> str:
        """Puts its code before ours."""
        return os.pathsep.join(str(self.folder / program / "src") for program in _PROGRAMS)


def previous(folder: Path, what: str) -> Release:
    """Unpack one of the two; skips the test where the history is not there."""
    commit = dict(line.split() for line in _PREVIOUS.read_text().splitlines())[what]
    git = ("git", "-C", str(ROOT))
    try:
        packed = subprocess.run(
            (*git, "archive", commit, "--", "protos", *_PROGRAMS), check=True, capture_output=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        words = getattr(error, "stderr", None) or str(error).encode()
        pytest.skip(f"the release before this one, {commit[:12]}, is not in this checkout's history: {words.decode()}")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as pack:
        pack.extractall(folder, filter="data")
    return Release(commit, folder)
