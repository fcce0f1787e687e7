"""Backends by the name that `stream.yaml` gives them."""

from pathlib import Path

from stream_core.deployment import ClusterConfig
from stream_core.errors import ConfigError
from stream_hpc_dispatch.clusters.base import Cluster
from stream_hpc_dispatch.clusters.local import LocalCluster


def open_cluster(
    config: ClusterConfig, *, command: list[str], state_dir: Path, stop_grace_s: float, tied: bool = True
) -> Cluster:
    """Make the backend of one cluster.

    Args:
        config: the cluster.
        command: starts a worker on this machine.
        state_dir: a folder that only this user can read.
        stop_grace_s: what a worker gets between being told to stop and being killed.
        tied: local workers die with this program, however it ends; else the next one takes them over.

    Raises:
        ConfigError: this program has no such backend.
    """
    match config.backend:
        case "local":
            command = config.worker_command or command
            return LocalCluster(command, state_dir / "workers", stop_grace_s, tied=tied)
        case "globus":
            return _open_globus(config)
        case other:
            raise ConfigError(f"cluster {config.name!r}: no backend {other!r} in this program", param="clusters")


def _open_globus(config: ClusterConfig) -> Cluster:
    try:
        # Here: its SDK takes a second to import, and is an extra.
        from stream_hpc_dispatch.clusters.globus import GlobusCluster  # noqa: PLC0415
    except ImportError as error:
        words = f"backend 'globus' needs the extra stream-hpc-dispatch[globus] ({error})"
        raise ConfigError(words, param=f"clusters.{config.name}.backend") from error
    return GlobusCluster(config)
