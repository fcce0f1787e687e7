"""The bill of materials of an image: all that is in it, with hashes and licences, by CycloneDX' own rules."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECKER = ROOT / ".cache" / "deploy" / "bin" / "python"
DEBIAN = """Package: libstdc++6
Status: install ok installed
Architecture: amd64
Version: 12.2.0-14+deb12u1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
CHECK = """
import json, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import get_spdx_licensing
text = sys.stdin.read()
print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) or "valid")
spdx = get_spdx_licensing()
for component in json.loads(text)["components"]:
    for each in component.get("licenses", []):
        if "expression" in each:
            spdx.parse(each["expression"], validate=True)
"""
sys.path.append(str(ROOT / "deploy" / "images"))

import sbom  # noqa: E402  (scripts of a folder, not a package)


@pytest.fixture(scope="module")
def listing():
    """What an image with this environment's distributions would list."""
    command = [sys.executable, "-c", sbom.LISTING]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return json.dumps({**told, "debian": DEBIAN})


def test_all_that_is_there_is_in_it(listing):
    """Python, each distribution in its version, Debian's packages that are installed and no others; all named once."""
    bill = sbom.bill("stream/relay", "0.1.0", listing, {})
    wanted = {f"pkg:pypi/{sbom.canonical(each.name)}@{each.version}" for each in importlib.metadata.distributions()}
    purls = [each["purl"] for each in bill["components"]]
    assert {purl for purl in purls if purl.startswith("pkg:pypi/")} == wanted
    assert [purl for purl in purls if not purl.startswith("pkg:pypi/")] == [
        f"pkg:generic/python@{sys.version.split()[0]}",
        "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64",
    ]
    assert len(set(purls)) == len(purls)


def test_hashes_and_licences(listing):
    """The wheel's hash where one is known; a licence for every distribution of others."""
    bill = sbom.bill("stream/relay", "0.1.0", listing, {"uvloop": "ab" * 32})
    found = {each["name"]: each for each in bill["components"]}
    assert found["uvloop"]["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert found["cryptography"]["licenses"] == [{"expression": "Apache-2.0 OR BSD-3-Clause"}]
    unknown = [each["name"] for each in bill["components"] if each["purl"].startswith("pkg:pypi/")]
    assert [name for name in unknown if "licenses" not in found[name] and not name.startswith("stream-")] == []


def test_the_schema(listing):
    """CycloneDX' own validator, strict, finds nothing; every expression is SPDX'."""
    if not CHECKER.exists():
        pytest.skip("the checkers are not installed; `make test-deploy` does that")
    bill = json.dumps(sbom.bill("stream/relay", "0.1.0", listing, {"uvloop": "ab" * 32}))
    told = subprocess.run([CHECKER, "-c", CHECK], input=bill, capture_output=True, text=True, check=False)
    assert told.stdout == "valid\n", told.stdout + told.stderr
