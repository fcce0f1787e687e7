"""A bill of materials (CycloneDX 1.5, JSON) of an image's Python distributions and Debian packages."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

LISTING: Final = (
    "import json, pathlib, importlib.metadata as m\n"
    "found = [[d.metadata['Name'], d.version, d.metadata.get('License-Expression') or ''] for d in m.distributions()]\n"
    "path = pathlib.Path('/var/lib/dpkg/status')\n"
    "print(json.dumps([found, path.read_text() if path.exists() else '']))\n"
)
"""Run inside the image; prints what `bill` reads."""


def bill(image: str, version: str, listing: str, hashes: Mapping[str, list[str]]) -> dict[str, Any]:
    """Write the bill.

    Args:
        image: its name.
        version: of this project.
        listing: what `LISTING` printed.
        hashes: SHA-256 of wheels, by canonical name, out of the lock.
    """
    distributions, debian = json.loads(listing)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": image, "version": version}},
        "components": [*map(_component(hashes), distributions), *_debian(debian)],
    }


def _component(hashes: Mapping[str, list[str]]):  # noqa: ANN202  (a function of one list)
    def made(entry: list[str]) -> dict[str, Any]:
        name, version, licence = entry
        canonical = re.sub(r"[-_.]+", "-", name).lower()
        found = [{"alg": "SHA-256", "content": each} for each in hashes.get(canonical, [])]
        component: dict[str, Any] = {
            "type": "library",
            "name": canonical,
            "version": version,
            "purl": f"pkg:pypi/{canonical}@{version}",
        }
        # The lock names every wheel of a version; a single one is this image's.
        if len(found) == 1:
            component["hashes"] = found
        if licence:
            component["licenses"] = [{"expression": licence}]
        return component

    return made


def _debian(status: str) -> Iterator[dict[str, Any]]:
    for block in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Architecture|Status): (.*)$", block, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{name}@{version}?arch={fields['Architecture']}"
            yield {"type": "library", "name": name, "version": version, "purl": purl}
