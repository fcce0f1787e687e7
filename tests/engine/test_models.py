"""Discovery: which model is served, from files and folders alone."""

import os
from pathlib import Path

import pytest

from stream_core.errors import ConfigError
from stream_engine.models import Places, chats, derive_alias, list_models, parts, resolve

from .conftest import chat_gguf, write_gguf

REVISION = "0123456789abcdef"
GB = 10**9


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Empty places, and a demo model."""
    return Places(tmp_path / "models", tmp_path / "hub", chat_gguf(tmp_path / "demo" / "demo.gguf"))


def cached(places: Places, repo: str, file: str, revision: str = REVISION) -> Path:
    """Put a chat model into the Hugging Face cache as the hub's client does: a blob and a link to it."""
    folder = places.hf_cache / f"models--{repo.replace('/', '--')}"
    blob = chat_gguf(folder / "blobs" / f"{revision}-{Path(file).name}")
    link = folder / "snapshots" / revision / file
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(blob)
    return link


@pytest.mark.parametrize(
    ("in_models_dir", "in_cache", "wanted", "alias", "source"),
    [
        (True, True, "demo", "stream-demo", "demo"),
        (True, True, "auto", "mine", "models_dir"),
        (False, True, "auto", "theirs", "hf_cache"),
        (False, False, "auto", "stream-demo", "demo"),
        (True, True, "org/theirs", "theirs", "config"),
        (True, True, "org/theirs:Q4_K_M", "theirs", "config"),
        (True, True, "org/theirs:theirs-Q4_K_M.gguf", "theirs", "config"),
        (True, True, "{models}/mine-Q8_0.gguf", "mine", "config"),
    ],
)
def test_order_of_discovery(
    places: Places, in_models_dir: bool, in_cache: bool, wanted: str, alias: str, source: str
) -> None:
    """What is named wins; `auto` takes the models folder, then the cache, then the demo model."""
    if in_models_dir:
        chat_gguf(places.models_dir / "mine-Q8_0.gguf")
    if in_cache:
        cached(places, "org/theirs", "theirs-Q4_K_M.gguf")
    model = resolve(wanted.format(models=places.models_dir), places, memory=GB)
    assert (model.alias, model.source, model.demo) == (alias, source, source == "demo")


def test_auto_passes_by_what_cannot_chat(places: Places) -> None:
    """Projectors, later parts, embedding models, models without template, and broken files are not chosen."""
    folder = places.models_dir
    chat_gguf(folder / "mmproj-x-f16.gguf")
    chat_gguf(folder / "big-Q8_0-00002-of-00002.gguf")
    write_gguf(folder / "embed.gguf", general__architecture="bert")
    write_gguf(folder / "base.gguf", general__architecture="llama")
    (folder / "broken.gguf").write_bytes(b"GGUF")
    (folder / "dangling.gguf").symlink_to(folder / "nowhere")
    assert [m.alias for m in list_models(places) if chats(m)] == ["stream-demo"]
    assert resolve("auto", places, memory=GB).demo


def test_auto_passes_by_what_does_not_fit_the_memory(places: Places) -> None:
    """A model of more than 60 percent of the memory is left to those who name it."""
    path = chat_gguf(places.models_dir / "large.gguf")
    size = path.stat().st_size
    assert resolve("auto", places, memory=size).demo
    assert resolve("auto", places, memory=2 * size).alias == "large"
    assert resolve(str(path), places, memory=1).alias == "large"


def test_newest_file_comes_first(places: Places) -> None:
    """Among several models of the folder, `auto` takes the one that was written last."""
    for name, age in (("old", 300), ("new", 100), ("middle", 200)):
        path = chat_gguf(places.models_dir / f"{name}.gguf")
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    assert [m.alias for m in list_models(places)] == ["new", "middle", "old", "stream-demo"]


def test_main_revision_of_the_cache_comes_first(places: Places) -> None:
    """Of two cached revisions, the one that `refs/main` names is taken."""
    for revision in ("aaa", "bbb"):
        cached(places, "org/theirs", "theirs.gguf", revision)
    main = places.hf_cache / "models--org--theirs" / "refs" / "main"
    main.parent.mkdir()
    main.write_text("bbb")
    assert resolve("org/theirs", places, memory=GB).path.parent.name == "bbb"


def test_split_model_counts_all_its_parts(places: Places) -> None:
    """A split model is found by its first part, has the size of all, and is no model while one is missing."""
    first = chat_gguf(places.models_dir / "big-Q4_K_M-00001-of-00002.gguf")
    assert resolve("auto", places, memory=GB).demo
    second = parts(first)[1]
    second.write_bytes(bytes(1000))
    model = resolve("auto", places, memory=GB)
    assert (model.alias, model.size) == ("big", first.stat().st_size + 1000)


@pytest.mark.parametrize(
    ("file", "alias"),
    [
        ("Llama-3.2-3B-Instruct-Q4_K_M.gguf", "Llama-3.2-3B-Instruct"),
        ("qwen2.5-3b-instruct-q4_k_m.gguf", "qwen2.5-3b-instruct"),
        ("Model-UD-Q4_K_XL-00001-of-00003.gguf", "Model"),
        ("phi-IQ2_XXS.gguf", "phi"),
        ("my model (2).gguf", "my-model-2"),
        ("Q8_0.gguf", "Q8_0"),
    ],
)
def test_alias_comes_from_the_file_name(file: str, alias: str) -> None:
    """The model's name in the API is its file's, without quantisation and part number."""
    assert derive_alias(Path(file)) == alias


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("org/absent:Q4_K_M", "stream models pull org/absent:Q4_K_M"),
        ("llama3.2:3b", "stream models pull llama3.2:3b"),
        ("gpt-9", "llama3.2:3b"),
        ("/nowhere/x.gguf", "No such file"),
    ],
)
def test_errors_say_what_to_do(places: Places, wanted: str, says: str) -> None:
    """A model that is not here is an error that names the setting and the way to get one."""
    with pytest.raises(ConfigError, match=says.replace(".", r"\.")) as caught:
        resolve(wanted, places, memory=GB)
    assert caught.value.param == "STREAM_ENGINE__MODEL"


def test_places_follow_the_environment(tmp_path: Path) -> None:
    """The variables of STREAM and of the Hugging Face cache decide where models are looked for."""
    home = tmp_path
    assert Places.from_environment({}, home).models_dir == Path(".stream/models")
    assert Places.from_environment({"STREAM_HOME": "/s"}, home).models_dir == Path("/s/models")
    assert Places.from_environment({"STREAM_MODELS_DIR": "/m"}, home).models_dir == Path("/m")
    assert Places.from_environment({}, home).hf_cache == home / ".cache/huggingface/hub"
    assert Places.from_environment({"HF_HOME": "/h"}, home).hf_cache == Path("/h/hub")
    assert Places.from_environment({"HF_HUB_CACHE": "/c", "HF_HOME": "/h"}, home).hf_cache == Path("/c")
