"""What runs on the cluster, as source text: a function that starts the installed worker and waits for its end.

The function's text is registered with Globus Compute. It is executed by the endpoint's Python, which is not ours and
may be an older or a newer one, without this package: it stands alone, and arguments and result are JSON. The worker
runs in an environment of its own, the one that its command names.
"""

import inspect
from typing import Final

FUNCTION: Final = "start_pilot"
"""Its name."""


def source() -> str:
    """Read the function's text."""
    return inspect.getsource(start_pilot)


def start_pilot(command, job, expires, tail_bytes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Run a worker until it ends.

    Args:
        command: list of texts; starts the worker.
        job: text that the worker reads from its standard input; it carries secrets.
        expires: unix seconds; a job that comes out of the queue later does not start.
        tail_bytes: how much of the end of its log to return.

    Returns:
        {"exit_code": negative for a signal, or None, "tail": text, "host": name, "error": why it did not start}
    """
    # Inside: the function is all that arrives.
    import contextlib  # noqa: PLC0415
    import os  # noqa: PLC0415
    import signal  # noqa: PLC0415
    import socket  # noqa: PLC0415
    import subprocess  # noqa: PLC0415
    import tempfile  # noqa: PLC0415
    import threading  # noqa: PLC0415
    import time  # noqa: PLC0415

    # A job of a batch system is this worker's alone. Who should give it back when the worker has ended may have been
    # killed; then it would stay until its walltime. So, unless another worker follows, it ends by itself.
    ending, after_s = "STREAM_PILOT_ENDING", 30
    host, in_batch = socket.gethostname(), any(name in os.environ for name in ("SLURM_JOB_ID", "PBS_JOBID"))
    if ending in os.environ:
        with contextlib.suppress(OSError):
            os.killpg(int(os.environ.pop(ending)), signal.SIGKILL)
    if time.time() >= expires:
        return {"exit_code": None, "tail": "", "host": host, "error": "its lease ended while it waited in the queue"}
    # Not the agent's own keys; and who dies with whom: a worker must not outlive the job that it runs in.
    environment = {k: v for k, v in os.environ.items() if not k.endswith(("SECRET", "PASSWORD", "API_KEY"))}
    environment["STREAM_DIE_WITH_PARENT"] = "1"
    environment["STREAM_PARENT_PID"] = str(os.getpid())
    with tempfile.TemporaryFile() as log:
        try:
            child = subprocess.Popen(  # noqa: S603  (the command is the operator's)
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            words = f"{command[0]}: {error.strerror}"
            return {"exit_code": None, "tail": "", "host": host, "error": words}

        def forward(number, frame):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
            child.terminate()

        before = None
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGTERM, forward)
        try:
            child.communicate(job.encode())
        finally:
            # Its engine, too. The group keeps its leader's id as long as one member lives.
            with contextlib.suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)
            if before is not None:
                signal.signal(signal.SIGTERM, before)
            if in_batch:
                # The parent is Parsl's process_worker_pool, and with it the job's script ends.
                last = ["sh", "-c", f"sleep {after_s}; kill {os.getppid()}"]
                quiet = subprocess.DEVNULL
                end = subprocess.Popen(last, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)  # noqa: S603
                os.environ[ending] = str(end.pid)
        log.seek(max(0, log.seek(0, os.SEEK_END) - tail_bytes))
        tail = log.read().decode("utf-8", "replace")
    return {"exit_code": child.returncode, "tail": tail, "host": host, "error": ""}
