"""A pod's processes in containers of the built images, as the manifest says: its user, its root, its capabilities.

Needs root, buildah with the images in its store, and crun. A pod's volumes alone are mounted, where `Places` puts them,
read-only where the manifest says so. What is not Kubernetes' here: the network is this machine's, and there is no
seccomp profile.
"""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.mapping import Places
from deploy.rendered import Object, pod_of

PREFIX = os.environ.get("STREAM_IMAGES", "")
"""Before an image's name, as `make images` had it; empty: images are not tried."""
# crun does not run where both versions of control groups are mounted; a mount namespace of its own has one.
_ONE_VERSION = 'umount -a -t cgroup2; exec "$@"'


def why_no_images() -> str:
    """Say why no container can be run here; empty when it can."""
    if not PREFIX:
        return "STREAM_IMAGES does not say which images to try; `make test-images` does"
    missing = [name for name in ("buildah", "crun", "unshare") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        return f"to run images, root, buildah and crun are needed; missing: {', '.join(missing) or 'root'}"
    return ""


@dataclass
class Containers:
    """Starts processes in images.

    Args:
        folder: for bundles and crun's state.
    """

    folder: Path
    _roots: dict[str, tuple[Path, list[str]]] = field(default_factory=dict)
    _made: list[str] = field(default_factory=list)

    def command(
        self, workload: Object, container: Object, places: Places, command: Sequence[str], told: Mapping[str, str]
    ) -> list[str]:
        """Write a container's bundle.

        Args:
            workload: whose pod it belongs to.
            container: of the manifest.
            places: where the pod's volumes are.
            command: what runs inside.
            told: variables beside the image's own.

        Returns:
            The command of this machine that runs it; signals are passed on.
        """
        root, variables = self._image(container["image"])
        _own(places, container, pod_of(workload)["securityContext"])
        bundle = self.folder / "bundles" / _name(places, container)
        bundle.mkdir(parents=True)
        environment = [*variables, *(f"{name}={value}" for name, value in told.items())]
        config = _config(workload, container, places, root, command, environment)
        (bundle / "config.json").write_text(json.dumps(config))
        return self._crun("run", f"--bundle={bundle}", bundle.name)

    def inside(self, workload: Object, container: Object, places: Places, command: Sequence[str]) -> list[str]:
        """The command of this machine that runs one more in a running container, as kubelet does for its probes."""
        pod = pod_of(workload)["securityContext"]
        user = f"--user={pod['runAsUser']}:{pod['runAsGroup']}"
        return self._crun("exec", user, "--no-new-privs", _name(places, container), *command)

    def close(self) -> None:
        """Give the images' roots back."""
        for made in self._made:
            _buildah("umount", made)
            _buildah("rm", made)

    def _crun(self, *command: str) -> list[str]:
        crun = ("crun", f"--root={self.folder / 'state'}", "--cgroup-manager=disabled")
        return ["unshare", "--mount", "sh", "-c", _ONE_VERSION, "sh", *crun, *command]

    def _image(self, name: str) -> tuple[Path, list[str]]:
        """Mount an image once.

        Returns:
            Its root, and its own variables.
        """
        if name not in self._roots:
            tag = name.replace("localhost/stream", PREFIX)
            variables = json.loads(_buildah("inspect", "--type=image", tag))["OCIv1"]["config"]["Env"]
            made = _buildah("from", "--pull-never", tag)
            self._made.append(made)
            self._roots[name] = Path(_buildah("mount", made)), variables
        return self._roots[name]


@contextlib.contextmanager
def run_containers(folder: Path) -> Iterator[Containers]:
    """Lend containers until the block ends."""
    containers = Containers(folder)
    try:
        yield containers
    finally:
        containers.close()


def _name(places: Places, container: Object) -> str:
    return f"{places.root.name}.{container['name']}"


def _buildah(*command: str) -> str:
    return subprocess.run(["buildah", *command], capture_output=True, text=True, check=True).stdout.strip()


def _own(places: Places, container: Object, context: Object) -> None:
    """Give the volumes to the pod's group, as kubelet does with `fsGroup`; the user may read what is its group's."""
    for mount in container.get("volumeMounts", []):
        folder = places.path(mount["mountPath"])
        for path in (folder, *folder.iterdir()):
            if path.stat().st_gid != context["fsGroup"]:
                os.chown(path, -1, context["fsGroup"])
                path.chmod(path.stat().st_mode | (0o2070 if path.is_dir() else 0o040))


def _config(
    workload: Object, container: Object, places: Places, root: Path, command: Sequence[str], environment: list[str]
) -> dict[str, Any]:
    """Write what OCI's runtime specification asks for."""
    pod, own = pod_of(workload)["securityContext"], container["securityContext"]
    assert own["capabilities"] == {"drop": ["ALL"]}
    sets = ("bounding", "effective", "permitted", "inheritable", "ambient")
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": own["readOnlyRootFilesystem"]},
        "process": {
            "user": {"uid": pod["runAsUser"], "gid": pod["runAsGroup"], "additionalGids": [pod["fsGroup"]]},
            "args": list(command),
            "env": environment,
            "cwd": "/",
            "noNewPrivileges": not own["allowPrivilegeEscalation"],
            "capabilities": {name: [] for name in sets},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777"]},  # noqa: S108  (the container's)
            *(_bind(places.path(each["mountPath"]), each) for each in container.get("volumeMounts", [])),
        ],
        "linux": {"namespaces": [{"type": name} for name in ("mount", "ipc", "uts", "pid")]},
    }


def _bind(folder: Path, mount: Object) -> dict[str, Any]:
    options = ["bind", "nosuid", "nodev", "ro" if mount.get("readOnly") else "rw"]
    return {"destination": str(folder), "type": "bind", "source": str(folder), "options": options}
