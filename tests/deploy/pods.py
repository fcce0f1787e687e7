"""One pod of a rendered workload: its containers as processes, its probes asked as kubelet asks them."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import ssl
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from deploy.containers import Containers
from deploy.mapping import Places
from deploy.rendered import Object, containers, pod_of, ports

from stream_core.lifecycle import DIE_WITH_PARENT, PARENT_PID

MARK = "POD_OF_THE_MANIFEST_RUNNER"
_UNVERIFIED = ssl.create_default_context()
_UNVERIFIED.check_hostname = False
_UNVERIFIED.verify_mode = ssl.CERT_NONE  # kubelet's probes do not verify


class PodError(Exception):
    """A pod did not do what its manifest says."""


@dataclass
class Ending:
    """How a pod ended."""

    name: str
    codes: dict[str, int]
    """Of each container's process; -9 when the grace period was over."""
    took_s: float
    grace_s: float


@dataclass
class Pod:
    """A running pod.

    Args:
        workload: the rendered Deployment or StatefulSet.
        name: unlike any other's.
        places: its address and folders.
        config: files of ConfigMaps, by ConfigMap.
        secrets: folder that holds the Secrets' folders.
        images: what runs its containers in their images; without it their commands are processes of this environment.
    """

    workload: Object
    name: str
    places: Places
    config: Mapping[str, Mapping[str, str]]
    secrets: Path
    images: Containers | None = None
    ready: bool = False
    leaving: bool = False
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    sick: list[str] = field(default_factory=list)
    """Liveness probes that failed."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def ports(self) -> dict[str, int]:
        """Its open ports by name."""
        return ports(self.workload)

    def log(self, container: str) -> str:
        """What a container has written."""
        return (self.places.root / f"{container}.log").read_text(errors="replace")

    async def start(self) -> None:
        """Mount, start all containers, and wait until each is started and ready.

        Raises:
            PodError: a startup probe gave up, or a container ended.
        """
        self._mount()
        for container in containers(self.workload):
            await self._run(container)
        for container in containers(self.workload):
            await self._started(container)
        waiting = [self._becomes_ready(container) for container in containers(self.workload)]
        await asyncio.gather(*waiting)
        self.ready = not self.leaving
        for container in containers(self.workload):
            self._tasks.append(asyncio.create_task(self._watch(container, "readinessProbe")))
            self._tasks.append(asyncio.create_task(self._watch(container, "livenessProbe")))

    async def stop(self) -> Ending:
        """Leave the endpoints, run the hook, send SIGTERM, and wait as long as the manifest allows."""
        self.ready, self.leaving = False, True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        grace = float(pod_of(self.workload)["terminationGracePeriodSeconds"])
        began = time.monotonic()
        codes = await asyncio.gather(*(self._end(each, began + grace) for each in containers(self.workload)))
        names = [each["name"] for each in containers(self.workload)]
        return Ending(self.name, dict(zip(names, codes, strict=True)), time.monotonic() - began, grace)

    def kill(self) -> None:
        """End what still runs."""
        for task in self._tasks:
            task.cancel()
        for process in self.processes.values():
            if process.returncode is None:
                process.kill()

    async def _end(self, container: Object, deadline: float) -> int:
        process = self.processes[container["name"]]
        hook = container.get("lifecycle", {}).get("preStop")
        if hook is not None:
            # kubelet runs it in the container; one that fails does not hold the signal up.
            await self._exec(container, hook["exec"]["command"], deadline - time.monotonic())
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await process.wait()
        except TimeoutError:
            process.kill()
            return await process.wait()

    def _mount(self) -> None:
        """Make every volume of every container; files of a ConfigMap say this machine's places."""
        volumes = {volume["name"]: volume for volume in pod_of(self.workload).get("volumes", [])}
        for container in containers(self.workload):
            for mount in container.get("volumeMounts", []):
                folder = self.places.path(mount["mountPath"])
                folder.mkdir(parents=True, exist_ok=True)
                volume = volumes.get(mount["name"], {})
                for source in [volume, *volume.get("projected", {}).get("sources", [])]:
                    self._fill(folder, source)

    def _fill(self, folder: Path, source: Mapping[str, Any]) -> None:
        if "configMap" in source:
            for name, text in self.config[source["configMap"]["name"]].items():
                (folder / name).write_text(self.places.text(text))
        if "secret" in source:
            name = source["secret"].get("secretName") or source["secret"]["name"]
            for path in (self.secrets / name.removeprefix("stream-")).iterdir():
                if path.is_file() and not path.name.startswith("."):
                    shutil.copy2(path, folder)

    def environment(self, container: Object) -> dict[str, str]:
        """A container's variables: the image's, then the manifest's with `$(NAME)` filled in."""
        found = {
            "HOME": str(self.places.path("/tmp")),  # noqa: S108  (the container's)
            "TMPDIR": str(self.places.path("/tmp")),  # noqa: S108
            MARK: str(self.places.root.parent),
            DIE_WITH_PARENT: "1",  # a test run that is killed leaves nothing
        }
        if self.images is None:
            found |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", PARENT_PID: str(os.getpid())}
        facts = {"status.podIP": self.places.address, "metadata.name": self.name}
        told: dict[str, str] = {}
        for variable in container.get("env", []):
            if "value" in variable:
                value = re.sub(r"\$\(([A-Z_]+)\)", lambda found: told[found[1]], variable["value"])
                told[variable["name"]] = self.places.text(value)
            else:
                told[variable["name"]] = facts[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        return found | told

    async def _run(self, container: Object) -> None:
        command = [self.places.text(part) for part in container["command"]]
        if self.images is not None:
            told = self.environment(container)
            command = self.images.command(self.workload, container, self.places, command, told)
        with (self.places.root / f"{container['name']}.log").open("wb") as log:
            self.processes[container["name"]] = await asyncio.create_subprocess_exec(
                *command,
                env=self.environment(container),
                cwd=self.places.root,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _exec(self, container: Object, command: list[str], limit_s: float) -> bool:
        command = [self.places.text(part) for part in command]
        if self.images is not None:
            command = self.images.inside(self.workload, container, self.places, command)
        process = await asyncio.create_subprocess_exec(
            *command,
            env=self.environment(container),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(limit_s):
                return await process.wait() == 0
        except TimeoutError:
            process.kill()
            await process.wait()
            return False

    async def probe(self, container: Object, kind: str) -> bool:
        """Ask once, as kubelet does: a status from 200 to 399, or an exit code of 0."""
        probe = container[kind]
        limit = float(probe.get("timeoutSeconds", 1)) * _PATIENCE
        if "exec" in probe:
            return await self._exec(container, probe["exec"]["command"], limit)
        get = probe["httpGet"]
        url = f"{get.get('scheme', 'HTTP').lower()}://{self.places.address}:{self.ports[get['port']]}{get['path']}"
        timeout = aiohttp.ClientTimeout(total=limit)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, ssl=_UNVERIFIED) as answer:
                return 200 <= answer.status < 400
        return False

    async def _started(self, container: Object) -> None:
        probe = container["startupProbe"]
        for _ in range(int(probe["failureThreshold"])):
            if await self.probe(container, "startupProbe"):
                return
            self._must_live(container["name"])
            await asyncio.sleep(probe["periodSeconds"])
        raise PodError(f"{self.name}/{container['name']} did not start:\n{self.log(container['name'])}")

    async def _becomes_ready(self, container: Object) -> None:
        async with asyncio.timeout(_READY_S):
            while not await self.probe(container, "readinessProbe"):
                self._must_live(container["name"])
                await asyncio.sleep(container["readinessProbe"]["periodSeconds"] / 4)

    async def _watch(self, container: Object, kind: str) -> None:
        """Go on asking; as often in a row as the manifest says, and the pod is not ready, or sick."""
        probe, failed = container[kind], 0
        while True:
            await asyncio.sleep(probe["periodSeconds"])
            failed = 0 if await self.probe(container, kind) else failed + 1
            late = failed >= probe.get("failureThreshold", 3)
            if kind == "livenessProbe" and late:
                self.sick.append(f"{self.name}/{container['name']}")
            elif kind == "readinessProbe" and not self.leaving:
                self.ready = not late

    def _must_live(self, container: str) -> None:
        code = self.processes[container].returncode
        if code is not None:
            raise PodError(f"{self.name}/{container} ended with {code}:\n{self.log(container)}")


_PATIENCE = 5
"""A machine that runs everything at once is slower than a cluster; the manifest's limits are for a cluster."""
_READY_S = 60.0
