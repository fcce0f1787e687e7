"""Settings and the deployment file: precedence, and errors that name file, line, field and variable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_core.deployment import parse
from stream_core.errors import ConfigError
from stream_core.settings import ProgramSettings, program_config, read_deployment, read_secret


class Example(ProgramSettings):
    """A program with one setting."""

    program = "example"
    model_config = program_config("example")
    number: int = 1


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    monkeypatch.delenv("STREAM_CONFIG", raising=False)


def test_environment_over_file_over_default(monkeypatch, tmp_path):
    """Without anything the default holds; the environment wins over it."""
    assert Example.read().number == 1
    monkeypatch.setenv("STREAM_EXAMPLE__NUMBER", "3")
    assert Example.read().number == 3


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("STREAM_EXAMPLE__NUMBER", "many", r"STREAM_EXAMPLE__NUMBER: Input should be a valid integer"),
        ("STREAM_EXAMPLE__NUMBRE", "3", r"STREAM_EXAMPLE__NUMBRE: no such setting; there are: log_level, number"),
        ("STREAM_EXAMPLE__LOG_LEVEL", "LOUD", r"STREAM_EXAMPLE__LOG_LEVEL: Input should be 'DEBUG'"),
    ],
)
def test_wrong_setting_names_its_variable(monkeypatch, name, value, complaint):
    """A wrong value and a misspelt variable are both refused, by name."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=complaint):
        Example.read()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("tiers: [", "f.yaml:1: "),
        ("- a", "f.yaml:1: a mapping is wanted"),
        ("tiers:\n  - name: local\n    base_url: http://x/v1\n    colour: red\n", "f.yaml:4: tiers.0.colour: Extra"),
        ("tiers:\n  - name: Local\n", "f.yaml:2: tiers.0.name: String should match"),
        ("tiers:\n  - name: auto\n    base_url: http://x\n", "'auto' is the routed model's name"),
        ("tiers:\n  - name: local\n", "tier 'local' of kind http needs a base_url"),
        ("policy:\n  good_enough: 2\n", "f.yaml:2: policy.good_enough: Input should be less than or equal to 1"),
        ("policy:\n  default_class: secret\n", "policy.default_class 'secret' is not among"),
        ("judge: 3\n", "f.yaml:1: judge: a mapping is wanted, not int"),
        ("nonsense: 1\n", "f.yaml:1: nonsense: Extra inputs"),
    ],
)
def test_file_errors_name_the_line(text, complaint):
    """Every mistake in the file is named with file, line and field."""
    with pytest.raises(ConfigError) as caught:
        parse(text, source="f.yaml")
    assert complaint in caught.value.message


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused(text):
    """Any text at all is a deployment or a ConfigError."""
    try:
        deployment, _ = parse(text)
    except ConfigError:
        return
    assert deployment.policy.classes


def test_missing_files(tmp_path):
    """A deployment file or secret that is not there, or is empty, is named."""
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        read_deployment(tmp_path / "gone.yaml")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        read_secret(tmp_path / "empty")
