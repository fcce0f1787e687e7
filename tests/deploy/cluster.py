"""An overlay run on this machine: its pods as processes, its Services as addresses, its names as a name server.

What is not Kubernetes' here: no image (this environment's Python has all programs) and no read-only root unless
`Containers` are given, no network policy, no scheduler. Pilot jobs outlive hpc_dispatch's pod, as jobs of a cluster do.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from deploy.brokers import loopback_net
from deploy.containers import Containers
from deploy.mapping import Places
from deploy.name_server import serve_names
from deploy.pods import MARK, Ending, Pod
from deploy.rendered import Object, Rendered, containers, name_of, selects
from deploy.service import ServiceAddress

from stream_cli.cluster_secrets import Installation, make

_ORDER = ("nats", "hpc-dispatch", "relay", "judge", "summarizer", "gateway")
_FIRST_POD = 50


@dataclass
class Cluster:
    """What runs.

    Args:
        rendered: the overlay.
        folder: for everything.
        net: "127.x.y.": the first three parts of all addresses.
    """

    rendered: Rendered
    folder: Path
    net: str
    installation: Installation
    hosts: dict[str, str]
    """Address of each Service that has one, and of each StatefulSet's pods."""
    images: Containers | None = None
    name_server: str = ""
    pods: list[Pod] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    _made: int = 0

    def of(self, name: str) -> list[Pod]:
        """The pods of a workload, the oldest first."""
        return [pod for pod in self.pods if name_of(pod.workload) == name]

    def ready(self, selector: Object) -> list[Pod]:
        """The pods that a selector finds and that are ready."""
        return [pod for pod in self.pods if pod.ready and selects(selector, pod.workload)]

    def lookup(self, name: str) -> Sequence[str] | None:
        """Addresses behind a Service's name."""
        short = name.partition(".")[0]
        found = [each for each in self.rendered.of("Service") if each["metadata"]["name"] == short]
        return [pod.places.address for pod in self.ready(found[0]["spec"]["selector"])] if found else None

    async def add(self, name: str) -> Pod:
        """Start one more pod of a workload."""
        workload = next(each for each in self.rendered.workloads if name_of(each) == name)
        self._made += 1
        pod_name = f"{name}-{self._made}" if workload["kind"] == "Deployment" else f"{name}-{len(self.of(name))}"
        mounts = {mount["mountPath"] for each in containers(workload) for mount in each.get("volumeMounts", [])}
        places = Places(
            root=self.folder / pod_name,
            address=f"{self.net}{_FIRST_POD + self._made}",
            mounts=tuple(mounts),
            hosts=self.hosts,
            name_server=self.name_server,
        )
        config = {each["metadata"]["name"]: each.get("data", {}) for each in self.rendered.of("ConfigMap")}
        pod = Pod(workload, pod_name, places, config, self.installation.folder, self.images)
        self.pods.append(pod)
        await pod.start()
        return pod

    async def remove(self, pod: Pod) -> None:
        """Stop one as Kubernetes does."""
        self.endings.append(await pod.stop())
        self.pods.remove(pod)

    async def roll(self, name: str) -> None:
        """Replace all pods of a workload: one more is ready before one is told to stop."""
        for old in self.of(name):
            await self.add(name)
            await self.remove(old)

    def kill_all(self) -> None:
        """End every process, also the pilot jobs."""
        for pod in self.pods:
            pod.kill()
        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get(MARK) == str(self.folder):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


@contextlib.asynccontextmanager
async def run_cluster(overlay: str, folder: Path, images: Containers | None = None) -> AsyncIterator[Cluster]:
    """Start an overlay with secrets of its own, in its images where `images` are given, until the block ends."""
    rendered, net = Rendered(overlay), loopback_net()
    addressed = [each for each in rendered.of("Service") if each["spec"].get("clusterIP") != "None"]
    hosts = {each["metadata"]["name"]: f"{net}{number}" for number, each in enumerate(addressed, 10)}
    # Where a name became an address, the certificate must name that too.
    installation = Installation(folder / "secrets", hosts={name: [hosts[name]] for name in hosts})
    make(installation, now=time.time())
    cluster = Cluster(rendered, folder, net, installation, hosts, images)
    services: list[ServiceAddress] = []
    async with serve_names(f"{net}2", cluster.lookup) as cluster.name_server:
        try:
            for each in addressed:
                for port in each["spec"]["ports"]:
                    service = ServiceAddress(_endpoints(cluster, each["spec"]["selector"], port["targetPort"]))
                    await service.start(hosts[each["metadata"]["name"]], port["port"])
                    services.append(service)
            for name in _ORDER:
                wanted = next(each for each in rendered.workloads if name_of(each) == name)["spec"]["replicas"]
                for _ in range(wanted):
                    await cluster.add(name)
            yield cluster
        finally:
            cluster.kill_all()
            await asyncio.gather(*(service.close() for service in services))


def _endpoints(cluster: Cluster, selector: Object, port: str):
    return lambda: [(pod.places.address, pod.ports[port]) for pod in cluster.ready(selector)]
