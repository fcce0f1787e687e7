"""A bill of materials (CycloneDX 1.6, JSON) of an image: Python, its distributions, and Debian's packages."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

LISTING: Final = """
import importlib.metadata, json, pathlib, platform

def licence(found):
    told = found.metadata
    if told.get("License-Expression"):
        return told["License-Expression"], True
    texts = [text.strip() for text in told.get_all("License") or [] if 0 < len(text.strip()) < 60]
    texts += [text.rpartition(":: ")[2] for text in told.get_all("Classifier") or [] if text.startswith("License ::")]
    for path in found.files or []:
        if not texts and path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING")):
            texts += path.read_text(encoding="utf-8").strip().splitlines()[:1]
    return (texts or [""])[0].strip(), False

found = [[each.metadata["Name"], each.version, *licence(each)] for each in importlib.metadata.distributions()]
path = pathlib.Path("/var/lib/dpkg/status")
debian = path.read_text() if path.exists() else ""
print(json.dumps({"python": platform.python_version(), "distributions": found, "debian": debian}))
"""
"""Run inside the image; prints what `bill` reads."""


def bill(image: str, version: str, listing: str, hashes: Mapping[str, str]) -> dict[str, Any]:
    """Write the bill.

    Args:
        image: its name.
        version: of this project.
        listing: what `LISTING` printed.
        hashes: SHA-256 of the wheel that each distribution was installed from, by canonical name.
    """
    told = json.loads(listing)
    python = [_component("python", told["python"], f"pkg:generic/python@{told['python']}")] if told["python"] else []
    distributions = [_distribution(*each, hashes) for each in told["distributions"]]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": image, "version": version}},
        "components": [*python, *distributions, *_debian(told["debian"])],
    }


def canonical(name: str) -> str:
    """Write a distribution's name as the index does (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _distribution(name: str, version: str, licence: str, spdx: bool, hashes: Mapping[str, str]) -> dict[str, Any]:
    name = canonical(name)
    component = _component(name, version, f"pkg:pypi/{name}@{version}")
    if name in hashes:
        component["hashes"] = [{"alg": "SHA-256", "content": hashes[name]}]
    if licence:
        component["licenses"] = [{"expression": licence} if spdx else {"license": {"name": licence}}]
    return component


def _debian(status: str) -> Iterator[dict[str, Any]]:
    for block in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Architecture|Status): (.*)$", block, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={fields['Architecture']}"
            yield _component(name, version, purl)


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
