"""What `kubectl kustomize` makes of an overlay, and questions to it."""

import functools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

K8S: Final = Path(__file__).parents[2] / "deploy" / "k8s"
SERVICES: Final = ("gateway", "judge", "summarizer", "hpc_dispatch", "relay")
OVERLAYS: Final = ("single-node", "production", "production-postgres", "relay-outside", "relay-outside/outside")
OLDEST_KUBECTL: Final = (1, 27)
"""The first with kustomize 5, whose `labels` and `patches` these files use."""

Object = Mapping[str, Any]


def why_no_kubectl() -> str:
    """Say why nothing can be rendered here; empty when it can."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return "kubectl is not installed: the manifests are not rendered"
    told = subprocess.run([kubectl, "version", "--client", "-o", "json"], capture_output=True, check=False)
    version = json.loads(told.stdout or b"{}").get("clientVersion", {})
    found = tuple(int(re.match(r"\d*", version.get(part, ""))[0] or 0) for part in ("major", "minor"))
    if found < OLDEST_KUBECTL:
        wanted = ".".join(map(str, OLDEST_KUBECTL))
        return f"kubectl is version {'.'.join(map(str, found))}, {wanted} is needed: the manifests are not rendered"
    return ""


@functools.cache
def render(overlay: str) -> tuple[Object, ...]:
    """Render an overlay, by its folder's name."""
    folder = K8S / "overlays" / overlay
    told = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if told.returncode != 0:
        raise RuntimeError(f"kubectl kustomize {overlay}:\n{told.stderr}")
    return tuple(yaml.safe_load_all(told.stdout))


@dataclass(frozen=True)
class Rendered:
    """The objects of one overlay."""

    overlay: str

    @property
    def objects(self) -> tuple[Object, ...]:
        """All of them."""
        return render(self.overlay)

    def of(self, *kinds: str) -> list[Object]:
        """Those of some kinds."""
        return [each for each in self.objects if each["kind"] in kinds]

    def named(self, kind: str, name: str) -> Object:
        """The one of that kind and name; a generated ConfigMap by its name without the digest."""
        pattern = re.compile(re.escape(name) + (r"(-[a-z0-9]{10})?" if kind == "ConfigMap" else ""))
        return next(each for each in self.of(kind) if pattern.fullmatch(each["metadata"]["name"]))

    @property
    def workloads(self) -> list[Object]:
        """What runs pods."""
        return self.of("Deployment", "StatefulSet")

    def services_of(self, workload: Object) -> list[Object]:
        """Services that lead to a workload's pods."""
        return [each for each in self.of("Service") if selects(each["spec"]["selector"], workload)]

    def policies_of(self, workload: Object) -> list[Object]:
        """Network policies that hold for a workload's pods."""
        found = self.of("NetworkPolicy")
        return [each for each in found if selects(each["spec"]["podSelector"].get("matchLabels", {}), workload)]


def name_of(workload: Object) -> str:
    """Its name."""
    return str(workload["metadata"]["name"])


def pod_of(workload: Object) -> Object:
    """The specification of its pods."""
    return workload["spec"]["template"]["spec"]


def labels_of(workload: Object) -> Mapping[str, str]:
    """The labels of its pods."""
    return workload["spec"]["template"]["metadata"]["labels"]


def selects(selector: Mapping[str, str], workload: Object) -> bool:
    """Tell whether a selector finds a workload's pods."""
    return selector.items() <= labels_of(workload).items()


def containers(workload: Object, *, with_init: bool = False) -> list[Object]:
    """Its containers."""
    pod = pod_of(workload)
    return [*(pod.get("initContainers", []) if with_init else []), *pod["containers"]]


def environment(container: Object) -> dict[str, str]:
    """Its variables with a value; those that the cluster fills in are left out."""
    return {each["name"]: each["value"] for each in container.get("env", []) if "value" in each}


def ports(workload: Object) -> dict[str, int]:
    """The ports its containers open, by name."""
    return {port["name"]: port["containerPort"] for each in containers(workload) for port in each.get("ports", [])}


def config_texts(rendered: Rendered, workload: Object) -> Iterator[str]:
    """The configuration files that its pods mount."""
    for volume in pod_of(workload).get("volumes", []):
        sources = [volume, *volume.get("projected", {}).get("sources", [])]
        for source in sources:
            if "configMap" in source:
                yield from rendered.named("ConfigMap", source["configMap"]["name"]).get("data", {}).values()
