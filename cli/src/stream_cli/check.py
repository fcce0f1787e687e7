"""`stream check`: is a deployment file right? Errors name file, line and field.

The core checks tiers, clusters and policy. A service's own section is checked by that service's settings class, in a
process of its own, since no program imports another.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import yaml

from stream_core.deployment import SERVICE_SECTIONS, Deployment, parse
from stream_core.errors import ConfigError

_TIMEOUT_S: Final = 30.0
_READ_SETTINGS: Final = """
import importlib, json, sys
from pydantic import ValidationError
from stream_core.settings import ProgramSettings
module = importlib.import_module(f"stream_{sys.argv[1]}.settings")
classes = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, ProgramSettings)
           and vars(each).get("program") == sys.argv[1]]
faults = []
for each in classes:
    try:
        each()
    except ValidationError as error:
        faults += [[list(map(str, fault["loc"])), fault["msg"]]
                   for fault in error.errors(include_url=False, include_input=False, include_context=False)
                   if fault["type"] != "missing"]
print(json.dumps(faults))
"""
"""Fields that are missing are not faults: `stream up`, or the institution's environment, gives them."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the whole file."""
    found = Deployment.model_json_schema()
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    found["title"] = "stream.yaml"
    found.pop("description", None)
    for name in SERVICE_SECTIONS:
        text = f"Settings of the program stream_{name}; STREAM_{name.upper()}__<FIELD> overrides them."
        found["properties"][name] = {"type": "object", "description": text}
    return found


def check(path: Path) -> Deployment:
    """Check a file.

    Raises:
        ConfigError: the file is wrong; one line per fault, each "file:line: field: what".
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read {path}: {error}") from error
    deployment, sections = parse(text, source=str(path))
    with ThreadPoolExecutor() as pool:
        faults = [fault for found in pool.map(lambda name: _section_faults(path, name), sections) for fault in found]
    if faults:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        raise ConfigError(
            "\n".join(f"{path}:{line_of(root, steps)}: {'.'.join(steps)}: {words}" for steps, words in faults)
        )
    return deployment


def _section_faults(path: Path, name: str) -> list[tuple[list[str], str]]:
    """Ask a service's settings class; a service that is not installed can't say anything."""
    if find_spec(f"stream_{name}") is None:
        return []
    environment = {k: v for k, v in os.environ.items() if not k.startswith(f"STREAM_{name.upper()}__")}
    environment["STREAM_CONFIG"] = str(path)
    done = subprocess.run(
        [sys.executable, "-c", _READ_SETTINGS, name],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        return [([name], f"can't be checked: {last[0]}")]
    return [([name, *steps], words) for steps, words in json.loads(done.stdout)]


def line_of(node: yaml.Node | None, steps: list[str]) -> int:
    """Find the line of the deepest node on a path that the file has."""
    line = node.start_mark.line + 1 if node else 1
    for step in steps:
        match node:
            case yaml.MappingNode():
                found = next(((key, value) for key, value in node.value if key.value == step), None)
                if found is None:
                    return line
                line, node = found[0].start_mark.line + 1, found[1]
            case yaml.SequenceNode() if step.isdigit() and int(step) < len(node.value):
                node = node.value[int(step)]
                line = node.start_mark.line + 1
            case _:
                return line
    return line


def summary(deployment: Deployment) -> list[str]:
    """Describe the tiers, one line each."""
    if not deployment.tiers:
        return ["no tiers named: `stream up` takes its defaults, local and hpc"]
    return [
        f"{tier.name}: {tier.kind}, up to {tier.privacy}, {'on' if tier.enabled else 'off'}, models: "
        + (", ".join(model.id for model in tier.models) or "as announced")
        for tier in deployment.tiers
    ]
