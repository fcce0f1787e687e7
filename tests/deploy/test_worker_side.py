"""deploy/hpc: the examples are read by the program's own parser, the scripts by their shell."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stream_core.deployment import parse
from stream_worker.doctor import arguments

ROOT = Path(__file__).parents[2]
HPC = ROOT / "deploy" / "hpc"


@pytest.mark.parametrize(("system", "scheduler"), [("slurm", "slurm"), ("pbs", "pbspro")])
def test_clusters(system, scheduler):
    """A valid deployment, whose engine gets its key by a file or variable."""
    deployment, _ = parse((HPC / system / "cluster.yaml").read_text())
    [cluster] = deployment.clusters
    assert cluster.parsl.scheduler == scheduler
    assert all("{port}" in pool.engine_command for pool in cluster.pools)


@pytest.mark.parametrize("script", ["slurm/doctor.sbatch", "pbs/doctor.pbs"])
def test_preflight_jobs(script):
    """The shell reads it, the command's own parser takes its options, and it enters what workers enter."""
    text = (HPC / script).read_text()
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    told = text.replace("\\\n", " ").split("stream-worker doctor ")[1].split()
    options = arguments(told)
    assert options.relay == ["wss://relay.stream.example"]
    cluster = parse((HPC / script).with_name("cluster.yaml").read_text())[0].clusters[0]
    assert all(line in text for line in cluster.parsl.worker_init)


def test_pbs_reads_every_directive():
    """As its qsub does: options that it has, all before the first command, and resources as chunks."""
    lines = (HPC / "pbs" / "doctor.pbs").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert not [line for line in lines[first:] if line.startswith("#PBS")]  # it stops looking at the first command
    options = [line.removeprefix("#PBS ").split(maxsplit=1) for line in lines if line.startswith("#PBS")]
    forms = {
        "-N": r"[A-Za-z_][\w.+-]{0,229}",
        "-q": r"[A-Za-z][\w-]*(@[\w.-]+)?",
        "-A": r"\S+",
        "-j": r"oe|eo|n",
        "-l": r"select=\d+(:\w+=\w+)+(\+\d+(:\w+=\w+)+)*|walltime=(\d+:)?[0-5]\d:[0-5]\d",
    }
    assert [(name, value) for name, value in options if not re.fullmatch(forms[name], value)] == []
    assert {"select", "walltime"} <= {value.partition("=")[0] for _, value in options}


def test_the_image_of_the_worker_is_locked():
    """What the Apptainer definition installs is the lock's, with hashes, and no gRPC is in it."""
    definition = (HPC / "apptainer" / "worker.def").read_text()
    assert "--require-hashes" in definition
    command = [sys.executable, ROOT / "deploy" / "images" / "locked.py", "stream-worker"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "picows==" in told
    assert "grpcio" not in told
    assert told.count("--hash=sha256:") >= told.count("==")
