"""`make conformance`: independent clients and suites against our server; last line JSON.

Each suite is a process with a time limit, and two run at once. What can't be installed or run is skipped with its
reason, in a list at the end; a suite that fails prints its output's tail. Exit code 1 when one failed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from conformance.house import PATIENCE_S, House, run_house

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".cache" / "conformance"
PYTHON = CACHE / "venv/bin/python"
NODE = CACHE / "node/node_modules"
LIMIT_S = 900
FEW = 10
"""With fewer examples for each operation schemathesis' systematic phase is left out."""
"""For one suite: in CI they have what other tests leave of the processor."""
AT_ONCE = 2
SEQUENCES = 40
"""Of requests that build upon each other."""
TAIL = 150

PYTHON_SUITES = {
    "openai (Python)": "openai_python.py",
    "anthropic (Python)": "anthropic_python.py",
    "langchain-tests, chat": "langchain_chat.py",
    "langchain-tests, embeddings": "langchain_embeddings.py",
    "LlamaIndex OpenAILike": "llamaindex_like.py",
    "instructor": "instructor_client.py",
    "litellm": "litellm_client.py",
}
SLOWEST = "too_slow,filter_too_much,data_too_large,large_base_example"
UNCHECKED = "positive_data_acceptance,missing_required_header"
"""Checks of schemathesis that do not apply; README.md has the reasons."""


@dataclass(frozen=True)
class Suite:
    """One suite."""

    name: str
    command: list[str]
    missing: str = ""
    """Why it can't run; empty when it can."""


@dataclass(frozen=True)
class Outcome:
    """What became of it."""

    name: str
    ended: str
    words: str
    seconds: float


def suites(house: House, examples: int) -> list[Suite]:
    """List all suites, with what stands in their way; the longest comes first.

    Args:
        house: what they run against.
        examples: of requests for each operation, that schemathesis makes up beside its systematic ones.
    """
    no_python = "" if PYTHON.exists() else "its packages are not installed (make conformance installs them)"
    if shutil.which("node") is None:
        no_node = "node is not installed"
    else:
        no_node = "" if (NODE / "openai").is_dir() else "its npm packages are not installed"
    schema = [str(PYTHON.with_name("st")), "run", f"{house.gateway.url}/openapi.json", "--checks", "all"]
    schema += ["--exclude-checks", UNCHECKED, "--suppress-health-check", SLOWEST, "--continue-on-failure"]
    schema += ["--header", f"Authorization: Bearer {house.gateway.stage.keys['admin']}"]
    schema += ["--generation-deterministic", "--request-timeout", str(PATIENCE_S), "--phases"]
    # The systematic phase takes most of the time, however few the examples.
    phases = "examples,coverage,fuzzing" if examples >= FEW else "examples,fuzzing"
    each = [phases, "--max-examples", str(examples)]
    # What one operation has made another one finds, changes and deletes: most of that needs sound requests.
    rows = ["stateful", "--mode", "positive", "--max-examples", str(SEQUENCES)]
    found = [Suite("schemathesis", schema + each, no_python), Suite("schemathesis, in rows", schema + rows, no_python)]
    found += [
        Suite(
            name,
            [str(PYTHON), "-m", "pytest", "-q", "-c", str(HERE / "suites/pytest.ini"), str(HERE / "suites" / file)],
            no_python,
        )
        for name, file in PYTHON_SUITES.items()
    ]
    found.append(Suite("openai (Node)", ["node", str(CACHE / "node/openai_node.mjs")], no_node))
    patient = ["--timeout", str(PATIENCE_S)]
    for profile in ("chat", "modern"):
        scan = ["node", str(NODE / "compatcanary/src/cli.js"), "scan", "--base-url", f"{house.gateway.url}/v1"]
        found.append(
            Suite(f"compatcanary, {profile}", [*scan, "--model", "stage/play", "--profile", profile, *patient], no_node)
        )
    return found


def run(suite: Suite, environment: dict[str, str], folder: Path) -> Outcome:
    """Run one suite, and print its output's tail if it fails."""
    if suite.missing:
        return Outcome(suite.name, "skipped", suite.missing, 0.0)
    began = time.monotonic()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("STREAM_", "PYTHON"))}
    try:
        done = subprocess.run(
            suite.command,
            env={**inherited, **environment},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        code, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        code, said = -1, f"{(error.stdout or b'').decode(errors='replace')}\nnot done within {LIMIT_S} s"
    seconds = time.monotonic() - began
    lines = said.strip().splitlines() or [""]
    if code:
        print("\n".join([f"\n----- {suite.name}: the end of its output -----", *lines[-TAIL:]]))
    return Outcome(suite.name, "failed" if code else "passed", lines[-1].strip("= "), seconds)


def main() -> int:
    """Run all, or those whose names have a word of the command line in them."""
    words = argparse.ArgumentParser(prog="conformance", description=__doc__)
    words.add_argument("chosen", nargs="*", help="words in the names of suites")
    words.add_argument("--examples", type=int, default=15, help="of schemathesis, for each operation")
    asked = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="stream-conformance-") as made:
        folder = Path(made)
        with run_house(folder) as house, ThreadPoolExecutor(AT_ONCE) as pool:
            environment = house.environment()
            chosen = [
                suite
                for suite in suites(house, asked.examples)
                if not asked.chosen or any(word in suite.name for word in asked.chosen)
            ]
            outcomes = list(pool.map(lambda suite: run(suite, environment, folder), chosen))
            faults = house.gateway.lines("request failed")
    print()
    for outcome in outcomes:
        print(f"{outcome.ended:8} {outcome.name:30} {outcome.seconds:5.1f} s  {outcome.words}")
    if faults:
        print(f"the gateway logged {len(faults)} internal errors; the first:", json.dumps(faults[0])[:2000])
    failed = [outcome.name for outcome in outcomes if outcome.ended == "failed"]
    skipped = {outcome.name: outcome.words for outcome in outcomes if outcome.ended == "skipped"}
    passed = sum(outcome.ended == "passed" for outcome in outcomes)
    print(json.dumps({"passed": passed, "failed": failed, "skipped": skipped, "internal_errors": len(faults)}))
    return 1 if failed or faults else 0


if __name__ == "__main__":
    sys.exit(main())
