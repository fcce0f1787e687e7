"""A real Slurm on one machine, for tests: munged, slurmctld and slurmd, without systemd, database or files in /etc.

All of its state is in one folder, its ports are free ones on loopback, and its munge key is its own. Users reach it by
the variables of `Slurm.env`. The node has more cores in its configuration than the machine may have, so that several
jobs run at once. When the block ends, however it ends, its jobs and daemons are ended by their own process ids.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from stream_core.files import write_private
from stream_core.testing.broker import free_port

PARTITION = "debug"
"""Takes jobs; the default."""
CLOSED = "closed"
"""Takes jobs and never starts them."""
CORES = 8
_PROGRAMS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
_READY_S = 30.0
_END_S = 20.0
_POLL_S = 0.02
_FREEZER = Path("/sys/fs/cgroup/freezer")

_CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/{tracking}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
KillWait=5
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory_mb} State=UNKNOWN
PartitionName={partition} Nodes={node} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
PartitionName={closed} Nodes={node} MaxTime=INFINITE State=DOWN
"""


def why_not() -> str:
    """Say why Slurm can't run here; empty when it can."""
    missing = [name for name in _PROGRAMS if _find(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: slurm-wlm slurmctld slurmd munge)"
    if os.geteuid() != 0:
        return "slurmd needs root"
    try:
        socket.getaddrinfo(_host(), None)
    except OSError:
        return f"this machine's own name {_host()!r} does not resolve"
    return ""


@dataclass
class Slurm:
    """A running one."""

    folder: Path
    env: dict[str, str]
    """For all that use it."""
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, *command: str) -> str:
        """Run one of its commands, e.g. `run("scancel", "7")`; its output.

        Raises:
            RuntimeError: it failed; the message holds its words.
        """
        done = subprocess.run(
            command, env=os.environ | self.env, capture_output=True, text=True, timeout=30, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """All jobs that have not ended: id to state, e.g. PENDING, RUNNING, COMPLETING."""
        lines = self.run("squeue", "--noheader", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def processes(self) -> list[psutil.Process]:
        """What jobs have left running: everything that carries a job's id and this cluster's configuration."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                environ = process.environ()
                if "SLURM_JOB_ID" in environ and environ.get("SLURM_CONF") == self.env["SLURM_CONF"]:
                    found.append(process)
        return found

    def wait_empty(self, timeout_s: float = _END_S) -> str:
        """Wait until no job and no process of one is left; what is left after that, in words, else empty."""
        deadline = time.monotonic() + timeout_s
        while (jobs := self.jobs()) or (processes := self.processes()):
            if time.monotonic() > deadline:
                return f"jobs {jobs}, processes {[process.cmdline() for process in self.processes()]}"
            time.sleep(_POLL_S)
        del processes
        return ""

    def clear(self) -> None:
        """Cancel what a failed test has left, so that the next one finds an empty queue."""
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            self.run("scancel", "--user=root")
            self.wait_empty()

    def stop_controller(self) -> None:
        """End slurmctld: the batch system can't be asked any more, its jobs run on."""
        _end(self.daemons.pop(1))

    def start_controller(self) -> None:
        """Start slurmctld (again, from its saved state) and wait until it answers."""
        self.daemons.insert(1, self._start("slurmctld", "-D"))
        self._wait("slurmctld answers", lambda: "UP" in self.run("scontrol", "ping"))

    def start(self) -> None:
        """Start all daemons and wait until the node is idle.

        Raises:
            RuntimeError: it did not become so; the message holds the daemons' logs.
        """
        munge = self.folder / "munge"
        munge.mkdir()
        munge.chmod(0o755)
        keys = self.folder / "key"
        keys.mkdir(mode=0o700)
        write_private(keys / "munge.key", secrets.token_bytes(128))
        files = [f"--{kind}={munge / kind}" for kind in ("socket", "pid-file", "log-file", "seed-file")]
        self.daemons.append(self._start("munged", "--foreground", "--force", f"--key-file={keys}/munge.key", *files))
        self._wait("munged answers", lambda: bool(self.run("munge", "--no-input", f"--socket={munge}/socket")))
        self.start_controller()
        self.daemons.append(self._start("slurmd", "-D"))
        self._wait("the node is idle", lambda: "idle" in self.run("sinfo", "--noheader", "--format=%T").split())

    def stop(self) -> None:
        """Cancel all jobs and end all daemons, and then whatever a job has left."""
        self.clear()
        for daemon in reversed(self.daemons):
            _end(daemon)
        # The batch system's own shepherds last: one whose slurmd is gone waits for it for ever.
        for process in [*self.processes(), *self._shepherds()]:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def _shepherds(self) -> list[psutil.Process]:
        """Each slurmstepd of this cluster that still runs."""
        found = []
        for process in psutil.process_iter(["name"]):
            with contextlib.suppress(psutil.Error):
                if (
                    process.info["name"] == "slurmstepd"
                    and process.environ().get("SLURM_CONF") == self.env["SLURM_CONF"]
                ):
                    found.append(process)
        return found

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [_find(name) or name, *arguments],
                env=os.environ | self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline and self.daemons[-1].poll() is None:
            with contextlib.suppress(RuntimeError):
                if done():
                    return
            time.sleep(_POLL_S)
        logs = "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(self.folder.glob("*.log")))
        raise RuntimeError(f"not within {_READY_S:g} s: {what}\n{logs}")


@contextlib.contextmanager
def run_slurm() -> Iterator[Slurm]:
    """Run one until the block ends.

    Raises:
        RuntimeError: it does not start; the message holds the daemons' logs.
    """
    folder = Path(tempfile.mkdtemp(prefix="stream-slurm-"))
    folder.chmod(0o755)  # munge's socket is for every user
    for name in ("state", "spool"):
        (folder / name).mkdir()
    tracking = "cgroup" if _cgroup_v1() else "linuxproc"
    node_port = free_port()
    node = f"{_host()}-{node_port}"  # its cgroups are named after it: two clusters of one machine must not share them
    values = {
        "host": _host(),
        "folder": folder,
        "controller_port": free_port(),
        "node": node,
        "node_port": node_port,
        "tracking": tracking,
        "cores": CORES,
        "memory_mb": psutil.virtual_memory().total // 2**20 // 2,
        "partition": PARTITION,
        "closed": CLOSED,
    }
    (folder / "slurm.conf").write_text(_CONFIG.format(**values))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    slurm = Slurm(folder, {"SLURM_CONF": str(folder / "slurm.conf")})
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
        _remove_cgroups(_FREEZER / f"slurm_{node}")
        shutil.rmtree(folder, ignore_errors=True)


def _host() -> str:
    """This machine, as slurmd will call itself."""
    return socket.gethostname().partition(".")[0]


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _cgroup_v1() -> bool:
    """Whether Slurm can track a job's processes by a cgroup of its own: version 1, or else it asks for systemd."""
    return (_FREEZER / "cgroup.procs").exists() and os.access(_FREEZER, os.W_OK)


def _remove_cgroups(top: Path) -> None:
    """Remove what slurmd has left of its cgroups; one that is in use stays."""
    for folder in sorted(top.glob("**/"), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _end(daemon: subprocess.Popen[bytes]) -> None:
    if daemon.poll() is None:
        daemon.terminate()
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
    daemon.wait()
