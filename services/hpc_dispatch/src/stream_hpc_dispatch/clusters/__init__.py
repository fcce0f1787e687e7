"""Backends by the name that `stream.yaml` gives them."""

from importlib.util import find_spec
from pathlib import Path

from stream_core.deployment import ClusterConfig
from stream_core.errors import ConfigError
from stream_hpc_dispatch.clusters.base import Cluster
from stream_hpc_dispatch.clusters.batch import check_safe
from stream_hpc_dispatch.clusters.local import LocalCluster
from stream_hpc_dispatch.clusters.parsl import ParslCluster
from stream_hpc_dispatch.clusters.pbspro import PbsPro
from stream_hpc_dispatch.clusters.slurm import Slurm


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
        ConfigError: this program has no such backend, or its section is not as it must be.
    """
    match config.backend:
        case "local":
            command = config.worker_command or command
            return LocalCluster(command, state_dir / "workers", stop_grace_s, tied=tied)
        case "parsl":
            return _open_parsl(config, state_dir=state_dir, stop_grace_s=stop_grace_s, tied=tied)
        case "globus":
            return _open_globus(config)
        case other:
            raise ConfigError(f"cluster {config.name!r}: no backend {other!r} in this program", param="clusters")


def _open_parsl(config: ClusterConfig, *, state_dir: Path, stop_grace_s: float, tied: bool) -> Cluster:
    section = config.parsl
    if section is None:
        raise ConfigError(f"cluster {config.name!r} has no section 'parsl'", param="clusters")
    if find_spec("parsl") is None:
        raise ConfigError("backend 'parsl' is an extra: install stream-hpc-dispatch[parsl]", param="clusters")
    scheduler = Slurm(section) if section.scheduler == "slurm" else PbsPro(section)
    root = ((section.job_folder or state_dir / "jobs") / config.name).absolute()
    check_safe(str(root), "job_folder")
    try:
        return ParslCluster(
            scheduler,
            config.worker_command or ["stream-worker"],
            root,
            nodes={pool.model.id: pool.nodes for pool in config.pools},
            grace_s=stop_grace_s,
            poll_s=section.poll_s,
            tied=tied,
        )
    except OSError as error:
        raise ConfigError(f"{root}: {error.strerror}", param="job_folder") from error


def _open_globus(config: ClusterConfig) -> Cluster:
    try:
        # Here: its SDK takes a second to import, and is an extra.
        from stream_hpc_dispatch.clusters.globus import GlobusCluster  # noqa: PLC0415
    except ImportError as error:
        words = f"backend 'globus' needs the extra stream-hpc-dispatch[globus] ({error})"
        raise ConfigError(words, param=f"clusters.{config.name}.backend") from error
    return GlobusCluster(config)
