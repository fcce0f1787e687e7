"""The tiny tokenizer folder and its counter."""

from pathlib import Path

import pytest

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
