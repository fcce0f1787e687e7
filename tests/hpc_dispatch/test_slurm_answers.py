"""What squeue's and sacct's answers mean, and sections of backend `parsl` that can't be used. Pure."""

import getpass
import os
from importlib import util

import pytest

from stream_core.cluster_config import ClusterConfig, ParslConfig
from stream_core.errors import ConfigError
from stream_hpc_dispatch.clusters import open_cluster
from stream_hpc_dispatch.clusters.base import JobView, Place
from stream_hpc_dispatch.clusters.batch import VAGUE, JobEnd, words_of
from stream_hpc_dispatch.clusters.slurm import Slurm, read_canceller, read_jobs


@pytest.mark.parametrize(
    ("state", "reason", "read"),
    [
        ("RUNNING", "None", JobView(Place.RUNNING)),
        ("COMPLETING", "None", JobView(Place.RUNNING)),
        ("SUSPENDED", "None", JobView(Place.RUNNING)),
        ("CONFIGURING", "None", JobView(Place.QUEUED)),
        ("REQUEUED", "BeginTime", JobView(Place.QUEUED, words="BeginTime")),
        ("NEWLY_INVENTED", "None", JobView(Place.UNKNOWN)),
        ("COMPLETED", "None", JobEnd()),
        ("CANCELLED", "Resources", JobEnd(reason="cancelled")),
        ("TIMEOUT", "TimeLimit", JobEnd(reason="walltime reached")),
        ("OUT_OF_MEMORY", "OutOfMemory", JobEnd(reason="out of memory")),
        ("NODE_FAIL", "None", JobEnd(reason="node failed")),
        ("PREEMPTED", "None", JobEnd(reason="preempted by another job")),
        ("FAILED", "NonZeroExitCode", JobEnd(reason=VAGUE)),
        ("FAILED", "JobLaunchFailure", JobEnd(reason="JobLaunchFailure")),
    ],
)
def test_what_squeue_says_of_one_job(state, reason, read):
    """States of Slurm, as they are shown."""
    (sighting,) = read_jobs([f"7|{state}|{reason}|N/A|10|debug|stream-1|of|many|parts"], [])
    assert (sighting.id, sighting.name, sighting.state) == ("7", "stream-1|of|many|parts", read)


def test_place_in_the_queue():
    """It counts the jobs of the same partition that have more priority; an expected start is told if there is one."""
    told = [
        "7|PENDING|Priority|1800000000|50|gpu|a",
        "8|PENDING|QOSMaxJobsPerUserLimit|N/A|20|gpu|b",
        "9|PENDING|Resources|N/A|10|cpu|c",
    ]
    queue = ["gpu|90", "gpu|60", "gpu|50", "gpu|20", "cpu|10"]
    assert [sighting.state for sighting in read_jobs(told, queue)] == [
        JobView(Place.QUEUED, 3, 1_800_000_000, "Priority"),
        JobView(Place.QUEUED, 4, None, "QOSMaxJobsPerUserLimit"),
        JobView(Place.QUEUED, 1, None, "Resources"),
    ]


@pytest.mark.parametrize(
    ("text", "user"),
    [
        (f"CANCELLED by {os.getuid()}\n", getpass.getuser()),
        ("CANCELLED by 4000000000", "user 4000000000"),
        ("COMPLETED", ""),
        ("", ""),
        ("FAILED by 0", ""),
    ],
)
def test_who_cancelled(text, user):
    """The accounting database gives a number."""
    assert read_canceller(text) == user


def test_words_of_a_command():
    """Lines without their prefixes, once each, of bounded length."""
    said = (
        "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition\n"
    )
    assert words_of(said) == "invalid partition specified: x; Batch job submission failed: Invalid partition"
    assert words_of("a\na\n\nb") == "a; b"
    assert len(words_of("x" * 10_000)) == 303


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    """Without Parsl the operator is told what to install."""
    monkeypatch.setattr(
        "stream_hpc_dispatch.clusters.find_spec", lambda name: None if name == "parsl" else util.find_spec(name)
    )
    config = ClusterConfig.model_validate({"name": "here", "backend": "parsl", "parsl": {"scheduler": "slurm"}})
    with pytest.raises(ConfigError, match=r"install stream-hpc-dispatch\[parsl\]"):
        open_cluster(config, command=[], state_dir=tmp_path, stop_grace_s=1)


@pytest.mark.parametrize("param", ["partition", "account", "qos"])
def test_a_name_that_would_be_shell(param):
    """It is refused by the name of its field."""
    with pytest.raises(ConfigError) as caught:
        Slurm(ParslConfig.model_validate({"scheduler": "slurm", param: "a\n#SBATCH --uid=0"}))
    assert caught.value.param == param
