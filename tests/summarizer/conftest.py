"""The tiny tokenizer folder and its counter."""

import datetime
from pathlib import Path

import pytest
import yaml

from stream_core.certificates import ensure_certificates
from stream_summarizer.tokens import Counter

from .building import STRICT, counter_of, make_folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def exact(folder: Path) -> Counter:
    """Counts with the tiny tokenizer."""
    return counter_of(folder)


@pytest.fixture(scope="session")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Counter:
    """Counts with a template that insists on turns."""
    return counter_of(make_folder(tmp_path_factory.mktemp("strict"), STRICT))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    ensure_certificates(folder, ["summarizer", "gateway"], now=datetime.datetime.now(datetime.UTC))
    return folder


@pytest.fixture(scope="session")
def config(certificates: Path, folder: Path) -> Path:
    """A deployment with a model that has a tokenizer and one that has none."""
    models = [{"id": "tiny", "tokenizer": str(folder)}, {"id": "unknown"}]
    tier = {"name": "local", "base_url": "http://127.0.0.1:9/v1", "models": models}
    path = certificates / "stream.yaml"
    path.write_text(yaml.safe_dump({"tiers": [tier], "summarizer": {"image_tokens": 1000}}))
    return path
