"""Which model the engine serves: discovery of GGUF files on this machine.

Order of `auto`: a GGUF in the models folder, one in the Hugging Face cache, the project's demo model. Everything
that decides takes the places as arguments; only `Places.from_environment` looks at the environment.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from stream_core.errors import ConfigError
from stream_engine import catalogue
from stream_engine.gguf import Header, NotGGUF, read_header

DEMO_ALIAS: Final = "stream-demo"
FIELD: Final = "STREAM_ENGINE__MODEL"
_MAX_FILES: Final = 2_000
_MEMORY_SHARE: Final = 0.6  # of the machine's memory: weights beyond it leave no room for contexts and neighbours
_PART: Final = re.compile(r"-(?P<index>\d{5})-of-(?P<count>\d{5})$")
_QUANT: Final = re.compile(r"[-._](?P<quant>(?:UD-)?(?:I?Q\d+(?:_[A-Z0-9]+)*|BF16|F16|F32|MXFP4))$", re.IGNORECASE)
REPOSITORY: Final = re.compile(
    r"^(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?::(?P<pick>[\w./-]{1,200}))?$"
)

Source = Literal["config", "models_dir", "hf_cache", "demo"]


@dataclass(frozen=True)
class Model:
    """A GGUF that can be served."""

    alias: str
    """Its name in the OpenAI API."""
    path: Path
    source: Source
    size: int
    """Bytes, all parts of a split model together."""
    header: Header

    @property
    def demo(self) -> bool:
        """Whether this is the demo model, whose answers are not to be believed."""
        return self.source == "demo"


@dataclass(frozen=True)
class Places:
    """Where models may lie on this machine."""

    models_dir: Path
    hf_cache: Path
    """The folder `hub` of the Hugging Face cache."""
    demo: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], home: Path) -> "Places":
        """Read `STREAM_MODELS_DIR`, `STREAM_HOME` and the variables of the Hugging Face cache."""
        models = environment.get("STREAM_MODELS_DIR")
        state = Path(environment.get("STREAM_HOME") or ".stream")
        cache = environment.get("HF_HUB_CACHE")
        hf_home = environment.get("HF_HOME")
        xdg = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
        return cls(
            models_dir=Path(models) if models else state / "models",
            hf_cache=Path(cache) if cache else (Path(hf_home) if hf_home else xdg / "huggingface") / "hub",
            demo=Path(__file__).parent / "demo" / "demo.gguf",
        )


def machine_memory() -> int:
    """Return the machine's memory in bytes; a large number where it cannot be told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 62


def derive_alias(path: Path) -> str:
    """Name a model after its file, without part number and quantisation."""
    stem = _PART.sub("", path.stem)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", _QUANT.sub("", stem)).strip("-.") or "model"


def quantisation(path: Path) -> str:
    """Return the quantisation in a file name, such as `Q4_K_M`; empty when it carries none."""
    found = _QUANT.search(_PART.sub("", path.stem))
    return found["quant"].upper() if found else ""


def is_candidate(path: Path) -> bool:
    """Tell by its name whether a file is a model to load: no projector, no later part of a split model."""
    part = _PART.search(path.stem)
    return (
        path.suffix.lower() == ".gguf"
        and "mmproj" not in path.name.lower()
        and (part is None or int(part["index"]) == 1)
    )


def parts(path: Path) -> list[Path]:
    """Return all files of the model whose first file is `path`; one for a model that is not split."""
    found = _PART.search(path.stem)
    if found is None:
        return [path]
    stem, count = path.stem[: found.start()], int(found["count"])
    return [path.with_name(f"{stem}-{index:05d}-of-{count:05d}{path.suffix}") for index in range(1, count + 1)]


def load(path: Path, source: Source, alias: str = "") -> Model:
    """Describe the model in a file.

    Raises:
        NotGGUF: the file is none.
        OSError: the file or one of its parts cannot be read.
    """
    header = read_header(path)
    size = sum(part.stat().st_size for part in parts(path))
    return Model(alias or (DEMO_ALIAS if source == "demo" else derive_alias(path)), path, source, size, header)


def _files(folder: Path) -> Iterator[Path]:
    """Yield candidates under a folder, newest first, then by name; at most `_MAX_FILES` are looked at."""
    found: list[tuple[float, str, Path]] = []
    for path in folder.rglob("*.gguf"):
        if len(found) == _MAX_FILES:
            break
        try:
            if is_candidate(path) and path.is_file():
                found.append((-path.stat().st_mtime, str(path), path))
        except OSError:
            continue  # a dangling link of the cache, or a file that went away while we looked
    yield from (path for _, _, path in sorted(found))


def _readable(paths: Iterable[Path], source: Source) -> Iterator[Model]:
    for path in paths:
        try:
            yield load(path, source)
        except (NotGGUF, OSError):
            continue  # a download that broke off, or no model at all: discovery passes by


def list_models(places: Places) -> list[Model]:
    """Return every model on this machine in the order in which `auto` considers them; the demo model is last."""
    found = list(_readable(_files(places.models_dir), "models_dir"))
    found += _readable(_cached(places.hf_cache), "hf_cache")
    found += _readable([places.demo], "demo")
    return found


def _cached(hf_cache: Path, repo: str | None = None) -> Iterator[Path]:
    """Yield candidates of the Hugging Face cache, the revision that `refs/main` names before others."""
    pattern = f"models--{repo.replace('/', '--')}" if repo else "models--*"
    for folder in sorted(hf_cache.glob(pattern)):
        try:
            main = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            main = ""
        snapshots = sorted((folder / "snapshots").glob("*"), key=lambda s: (s.name != main, s.name))
        seen: set[str] = set()
        for snapshot in snapshots:
            for path in _files(snapshot):
                relative = str(path.relative_to(snapshot))
                if relative not in seen:
                    seen.add(relative)
                    yield path


def chats(model: Model) -> bool:
    """Tell whether a model can hold a conversation."""
    return model.header.has_chat_template and not model.header.embedding_only


def resolve(wanted: str, places: Places, memory: int) -> Model:
    """Return the model that a setting means.

    Args:
        wanted: `auto`, `demo`, a path, a name of the catalogue, or `org/name[:quant or file]`.
        places: where to look.
        memory: bytes of memory that `auto` may count on.

    Raises:
        ConfigError: nothing there, or no GGUF; the message says what to do.
    """
    if wanted == "auto":
        fitting = (m for m in list_models(places) if m.demo or (chats(m) and m.size <= memory * _MEMORY_SHARE))
        model = next(fitting, None)
        if model is None:
            raise ConfigError(f"the demo model is missing from {places.demo}: install stream-engine again", param=FIELD)
        return model
    if wanted == "demo":
        return _named(places.demo, "demo")
    path = Path(wanted).expanduser()
    if path.is_file() or (wanted.endswith(".gguf") and ":" not in wanted):
        return _named(path, "config")
    entry = catalogue.ENTRIES.get(wanted)
    found = REPOSITORY.match(entry.pick if entry else wanted)
    if found is None:
        known = ", ".join(catalogue.ENTRIES)
        raise ConfigError(
            f"{wanted!r} is no file, no repository org/name and no known name; write auto, demo, a path or: {known}",
            param=FIELD,
        )
    return _from_repository(found["repo"], found["pick"] or "", places, wanted)


def _named(path: Path, source: Source) -> Model:
    try:
        return load(path, source)
    except NotGGUF as error:
        raise ConfigError(f"{path} is no usable GGUF ({error}); give another file, or demo", param=FIELD) from error
    except OSError as error:
        raise ConfigError(
            f"cannot read {error.filename or path} ({error.strerror}); give an existing GGUF, or demo", param=FIELD
        ) from error


def _from_repository(repo: str, pick: str, places: Places, wanted: str) -> Model:
    files = [*_files(places.models_dir / repo), *_cached(places.hf_cache, repo)]
    if pick:
        files = [p for p in files if p.name == Path(pick).name or quantisation(p) == pick.upper()]
    if not files:
        raise ConfigError(
            f"{wanted} is not on this machine; fetch it with `stream models pull {wanted}`, or set demo", param=FIELD
        )
    return _named(files[0], "config")


def as_dict(model: Model) -> dict[str, object]:
    """Return a model as JSON-serialisable facts."""
    return {
        "model": model.alias,
        "path": str(model.path),
        "source": model.source,
        "demo": model.demo,
        "size": model.size,
        "architecture": model.header.architecture,
        "context": model.header.context,
        "chat": chats(model),
    }


def main() -> None:
    """Print the models of this machine, one JSON object a line, in the order of `auto`."""
    argparse.ArgumentParser(prog="python -m stream_engine.models", description=main.__doc__).parse_args()
    for model in list_models(Places.from_environment(os.environ, Path.home())):
        sys.stdout.write(json.dumps(as_dict(model)) + "\n")


if __name__ == "__main__":
    main()
