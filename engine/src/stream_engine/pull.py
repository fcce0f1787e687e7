"""`python -m stream_engine.pull NAME`: download a GGUF from the Hugging Face hub into the models folder."""

import argparse
import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from stream_core.errors import InvalidRequest, ModelNotFound, StreamError
from stream_engine import catalogue
from stream_engine.hub import DEFAULT_ENDPOINT, Hub, RemoteFile, Repository
from stream_engine.models import REPOSITORY, Places, is_candidate, parts, quantisation

PREFERRED: Final = ("Q4_K_M", "Q4_K_S", "IQ4_XS", "Q4_0", "Q5_K_M", "Q6_K", "Q8_0", "BF16", "F16")
"""Quantisations in the order in which one is taken when none is named: small, and hardly worse than the original."""


def parse_name(name: str) -> tuple[str, str, str]:
    """Return (repository, quantisation or file, licence) that a name means; the last two may be empty.

    Raises:
        InvalidRequest: neither a name of the catalogue nor `org/name[:quant or file]`.
    """
    entry = catalogue.ENTRIES.get(name)
    found = REPOSITORY.match(entry.pick if entry else name)
    if found is None:
        known = ", ".join(catalogue.ENTRIES)
        raise InvalidRequest(f"{name!r} is no org/name[:quant or file] and none of the known names: {known}")
    return found["repo"], found["pick"] or "", entry.licence if entry else ""


def choose(files: Sequence[RemoteFile], pick: str) -> list[RemoteFile]:
    """Return the files of the model to download: one, or all parts of a split one.

    Args:
        files: of the repository.
        pick: a quantisation or a file name; empty takes the first of `PREFERRED` that is there.

    Raises:
        ModelNotFound: no such file; the message lists what there is.
    """
    by_name = {file.name: file for file in files}
    models = [file for file in files if is_candidate(Path(file.name))]
    if pick:
        wanted = pick.lower()
        found = [
            f
            for f in models
            if wanted in {f.name.lower(), Path(f.name).name.lower(), quantisation(Path(f.name)).lower()}
        ]
    else:
        rank = {quant: place for place, quant in enumerate(PREFERRED)}
        found = sorted(models, key=lambda f: (rank.get(quantisation(Path(f.name)), len(rank)), f.size, f.name))
    if not found:
        offered = ", ".join(sorted(quantisation(Path(f.name)) or f.name for f in models)) or "no GGUF at all"
        raise ModelNotFound(f"no {pick or 'GGUF'} there; it offers: {offered}")
    names = [str(PurePosixPath(part)) for part in parts(Path(found[0].name))]
    missing = [name for name in names if name not in by_name]
    if missing:
        raise ModelNotFound(f"part {missing[0]} is missing from the repository")
    return [by_name[name] for name in names]


def local_name(file: RemoteFile) -> str:
    """Return the name under which a file is kept: its last component, so that no name leaves the folder.

    Raises:
        InvalidRequest: nothing is left of it.
    """
    name = PurePosixPath(file.name.replace("\\", "/")).name
    if not name or name.startswith(".") or "\0" in name:
        raise InvalidRequest(f"the repository's file name {file.name!r} is not usable")
    return name


def check_space(folder: Path, needed: int) -> None:
    """Refuse a download that does not fit.

    Raises:
        InvalidRequest: the message prints both numbers.
    """
    free = shutil.disk_usage(next(p for p in [folder, *folder.resolve().parents] if p.exists())).free
    if needed > free:
        raise InvalidRequest(f"the model has {needed:,} bytes, and {folder} has {free:,} free; name another --dir")


def _meter(progress: Progress, task: TaskID) -> Callable[[int], None]:
    return lambda done: progress.update(task, completed=done)


async def pull(name: str, pick: str, folder: Path, hub: Hub, console: Console) -> Path:
    """Download a model and return the path of its (first) file.

    Args:
        name: of the catalogue, or `org/name[:quant or file]`.
        pick: overrides the part behind the colon; may be empty.
        folder: gets `<org>/<name>/<file>`.
        hub: entered client.
        console: for the licence, the bar and the result.

    Raises:
        StreamError: anything that keeps the model from being here, whole and verified.
    """
    repo, named, licence = parse_name(name)
    repository: Repository = await hub.describe(repo)
    files = choose(repository.files, pick or named)
    licence = repository.licence or licence or "not stated"
    console.print(
        f"{repo} at {repository.commit[:12]}, licence: {licence} (read it on the model's page)", highlight=False
    )
    targets = [folder / repo / local_name(file) for file in files]
    check_space(folder, sum(f.size for f, t in zip(files, targets, strict=True) if not t.exists()))
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        for file, target in zip(files, targets, strict=True):
            task = progress.add_task(target.name, total=file.size)
            if target.exists() and target.stat().st_size == file.size:
                progress.update(task, completed=file.size)
                continue
            await hub.download(repository, file, target, _meter(progress, task))
    console.print(f"{targets[0]}", highlight=False, markup=False, soft_wrap=True)
    return targets[0]


async def _run(options: argparse.Namespace, console: Console) -> None:
    folder = options.dir or Places.from_environment(os.environ, Path.home()).models_dir
    endpoint = os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
    async with Hub(endpoint, os.environ.get("HF_TOKEN", "")) as hub:
        await pull(options.name, options.file or "", folder, hub, console)


def main() -> None:
    """Run the download; any failure is one line on stderr and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m stream_engine.pull", description=__doc__)
    parser.add_argument("name", help=f"org/name[:quant or file], or one of: {', '.join(catalogue.ENTRIES)}")
    parser.add_argument("--file", help="a file of the repository, or a quantisation such as Q8_0")
    parser.add_argument("--dir", type=Path, help="folder of models (default: STREAM_MODELS_DIR)")
    options = parser.parse_args()
    try:
        asyncio.run(_run(options, Console(stderr=True)))
    except StreamError as error:
        sys.stderr.write(f"stream-engine: {error.message}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("stream-engine: stopped; the same command goes on where this one ended\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
