"""A pod's paths and addresses on this machine: the manifest's text stays, its places move.

Each pod and each Service has a loopback address of its own (Linux answers on all of 127.0.0.0/8), so every port is the
manifest's. In variables, commands, probes and mounted files three things are replaced:

    a mount path                  the pod's own folder + that path
    0.0.0.0, 127.0.0.1            the pod's address: its loopback is nobody else's
    a Service's name before :port its address; dns:///NAME:port becomes dns://SERVER/NAME:port, of a server here
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """Where things are for one pod.

    Args:
        root: folder that stands for the container's root.
        address: the pod's.
        mounts: paths inside the container that are under `root`.
        hosts: addresses by name: of Services, of a StatefulSet's pods.
        name_server: "address:port".
    """

    root: Path
    address: str
    mounts: tuple[str, ...] = ()
    hosts: Mapping[str, str] = field(default_factory=dict)
    name_server: str = ""

    def path(self, inside: str) -> Path:
        """Where a path inside the container is."""
        return self.root / inside.lstrip("/")

    def text(self, told: str) -> str:
        """The same text with this machine's places."""
        hosts = "|".join(map(re.escape, sorted(self.hosts, key=len, reverse=True))) or "(?!)"
        mounts = "|".join(map(re.escape, sorted(self.mounts, key=len, reverse=True))) or "(?!)"
        # One pass: what was put in is not looked at again.
        pattern = re.compile(
            rf"\bdns:///(?P<name>[a-z][\w.-]*:\d+)"
            rf"|(?:(?<![\w./-])|(?<=[a-z]://))(?P<host>{hosts})(?=:\d)"
            rf"|\b(?P<own>0\.0\.0\.0|127\.0\.0\.1)\b"
            rf"|(?<![\w./-])(?P<mount>{mounts})(?=$|[/\"'\s,\]])"
        )
        return pattern.sub(self._place, told)

    def _place(self, found: re.Match[str]) -> str:
        match found.lastgroup:
            case "name":
                return f"dns://{self.name_server}/{found['name']}"
            case "host":
                return self.hosts[found["host"]]
            case "own":
                return self.address
            case _:
                return str(self.path(found["mount"]))
