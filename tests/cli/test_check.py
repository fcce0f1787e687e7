"""`stream check`: right files pass, wrong ones are told by file, line and field."""

import json

import pytest
import yaml

from stream_cli.check import line_of

RIGHT = """\
tiers:
  - name: local
    base_url: http://127.0.0.1:8000/v1
    privacy: restricted
    models: [{id: small}]
  - name: hpc
    kind: hpc
policy:
  good_enough: 0.7
judge:
  cache_entries: 10
"""


def test_a_right_file_is_summed_up(tmp_path, stream):
    """Exit code 0 and one line per tier; what only `stream up` gives, such as certificates, is not missed."""
    (tmp_path / "stream.yaml").write_text(RIGHT)
    done = stream("check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "stream.yaml is right" in done.stdout
    assert "local: http, up to restricted, on, models: small" in done.stdout
    assert "hpc: hpc, up to public, on, models: as announced" in done.stdout


@pytest.mark.parametrize(
    ("text", "line", "field"),
    [
        (RIGHT.replace("kind: hpc", "kind: grid"), 7, "tiers.1.kind"),
        (RIGHT.replace("good_enough: 0.7", "good_enough: 7"), 9, "policy.good_enough"),
        (RIGHT.replace("models: [{id: small}]", "models: [{id: small, context: 5}]"), 5, "tiers.0.models.0.context"),
        (RIGHT.replace("cache_entries: 10", "cache_entries: -1"), 11, "judge.cache_entries"),
        (RIGHT.replace("cache_entries: 10", "cash_entries: 1"), 11, "judge.cash_entries"),
        (RIGHT.replace("judge:", "judges:"), 10, "judges"),
        (RIGHT.replace("policy:", "policy: ["), 10, ""),
        ("- a\n", 1, "file"),
    ],
)
def test_a_wrong_file_is_told_by_line_and_field(tmp_path, stream, text, line, field):
    """Exit code 1, and each fault as "file:line: field: what", for the core's part and a service's section."""
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    done = stream("check", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{path}:{line}")
    assert field in done.stderr
    assert "Traceback" not in done.stderr


def test_all_faults_of_the_sections_are_told(tmp_path, stream):
    """Two wrong sections are two lines."""
    path = tmp_path / "wrong.yaml"
    path.write_text("judge:\n  cache_entries: x\nrelay:\n  port: 99999\n")
    lines = stream("check", path).stderr.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{path}:2", "judge.cache_entries"],
        [f"{path}:4", "relay.port"],
    ]


def test_clusters_of_one_name_are_refused(tmp_path, stream):
    """Two clusters of one name could not be told apart in `hpc/<cluster>/<model>`."""
    path = tmp_path / "wrong.yaml"
    path.write_text("clusters:\n  - name: alpha\n  - name: alpha\n")
    assert "cluster names must differ: ['alpha', 'alpha']" in stream("check", path).stderr


def test_a_missing_file_is_told(tmp_path, stream):
    """No file is one clear line."""
    done = stream("check", tmp_path / "none.yaml")
    assert done.returncode == 1
    assert "No such file" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_schema_knows_the_core_and_the_sections(stream):
    """--schema prints JSON Schema with tiers, clusters, policy and each service's section."""
    schema = json.loads(stream("check", "--schema").stdout)
    sections = {"gateway", "judge", "summarizer", "hpc_dispatch", "relay"}
    assert set(schema["properties"]) == {"tiers", "clusters", "policy"} | sections
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        ([], 1),
        (["a"], 1),
        (["a", "b"], 2),
        (["a", "b", "1"], 4),
        (["a", "b", "9"], 2),
        (["x"], 1),
        (["a", "b", "0", "c"], 3),
    ],
)
def test_the_line_of_a_field(steps, line):
    """The deepest node that the file has; an empty file is line 1."""
    assert line_of(yaml.compose("a:\n  b:\n    - 1\n    - 2\n"), steps) == line
    assert line_of(None, steps) == 1
