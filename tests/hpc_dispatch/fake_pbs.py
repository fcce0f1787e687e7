"""PBS Pro's commands as far as the backend uses them, for tests: PBS itself is in no Debian. Jobs are real processes.

Called by the name of the command that it stands for; its state is the folder FAKE_PBS, with a file `<id>.json` for
each job. Switches are files there: `away` (the server can't be reached), `no_history` (ended jobs are forgotten),
`garbled` (qstat's JSON is none). Words and exit codes are those of OpenPBS 23.
"""

import getpass
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

STATE = Path(os.environ["FAKE_PBS"])
RUN = '/bin/bash "$0" >"$1" 2>"$2"; echo $? >"$3"'


def fail(code: int, words: str) -> None:
    sys.stderr.write(f"{words}\n")
    sys.exit(code)


def load(job_id: str) -> dict | None:
    path = STATE / f"{job_id}.json"
    job = json.loads(path.read_text()) if path.exists() else None
    if job and (STATE / "no_history").exists() and ended(job):
        return None
    return job


def ended(job: dict) -> bool:
    return job["deleted"] or Path(job["exit"]).exists()


def alive(job: dict) -> bool:
    if not job["pid"]:
        return False
    try:
        return Path(f"/proc/{job['pid']}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def qsub(arguments: list[str]) -> None:
    script = Path(arguments[-1])
    queue = arguments[arguments.index("-q") + 1] if "-q" in arguments else "workq"
    if queue == "nowhere":
        fail(170, "qsub: Unknown queue")
    text = script.read_text()
    told = dict(re.findall(r"^#PBS -(N|o|e) (.*)$", text, re.MULTILINE))
    job_id = f"{len(list(STATE.glob('*.json'))) + 1}.fake"
    job = {
        "name": told["N"],
        "text": text,
        "queue": queue,
        "pid": 0,
        "deleted": False,
        "exit": str(STATE / f"{job_id}.exit"),
    }
    if queue != "closed":
        command = ["/bin/bash", "-c", RUN, str(script), told["o"], told["e"], job["exit"]]
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PBS_JOBID": job_id}
        with Path(os.devnull).open("rb+") as nothing:
            streams = {"stdin": nothing, "stdout": nothing, "stderr": nothing}
            job["pid"] = subprocess.Popen(command, env=environment, start_new_session=True, **streams).pid
    (STATE / f"{job_id}.json").write_text(json.dumps(job))
    sys.stdout.write(f"{job_id}\n")


def told_of(job: dict) -> dict:
    told = {"Job_Name": job["name"], "Job_Owner": f"{getpass.getuser()}@here", "queue": job["queue"]}
    if ended(job) and not alive(job):
        status = 271 if job["deleted"] else int(Path(job["exit"]).read_text())
        comment = "Job run at Thu Nov 26 at 18:00 on (here:ncpus=1) and " + (
            "terminated" if job["deleted"] else "failed"
        )
        return told | {"job_state": "F", "Exit_status": status, "comment": job.get("comment", comment)}
    if job["pid"]:
        return told | {"job_state": "R"}
    start = time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(2_000_000_000))
    words = "Not Running: Queue not started."
    return told | {"job_state": "Q", "comment": words, "estimated": {"start_time": start}}


def qstat(arguments: list[str]) -> None:
    if "-B" in arguments:
        sys.stdout.write("Server Max Tot Que Run\n")
        return
    if "-x" in arguments and (STATE / "no_history").exists():
        fail(1, "qstat: PBS is not configured to maintain job history")
    if (STATE / "garbled").exists():
        sys.stdout.write('{"Jobs": {"1.fake": {"Variable_List": {"A": "a "quote""}}}}')
        return
    jobs, unknown = {}, []
    for job_id in (argument for argument in arguments if argument.endswith(".fake")):
        job = load(job_id)
        if job is None:
            unknown.append(f"qstat: Unknown Job Id {job_id}")
        else:
            jobs[job_id] = told_of(job)
    if jobs:
        sys.stdout.write(json.dumps({"timestamp": 0, "pbs_server": "fake", "Jobs": jobs}))
    if unknown:
        fail(153, "\n".join(unknown))


def qselect(arguments: list[str]) -> None:
    assert arguments == ["-u", getpass.getuser()], arguments
    for path in sorted(STATE.glob("*.json")):
        if not ended(json.loads(path.read_text())):
            sys.stdout.write(f"{path.stem}\n")


def one(arguments: list[str]) -> tuple[str, dict]:
    job = load(arguments[-1])
    if job is None or ended(job):
        fail(35, f"{Path(sys.argv[0]).name}: Job has finished {arguments[-1]}")
    return arguments[-1], job


def qsig(arguments: list[str]) -> None:
    assert arguments[:2] == ["-s", "SIGTERM"], arguments
    _, job = one(arguments)
    # The script itself: of our starter's session, its child.
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == job["pid"]:
            os.kill(int(stat.parent.name), signal.SIGTERM)


def qdel(arguments: list[str]) -> None:
    job_id, job = one(arguments)
    job["deleted"] = True
    job["comment"] = "Job deleted by somebody"
    (STATE / f"{job_id}.json").write_text(json.dumps(job))
    if job["pid"]:
        os.killpg(job["pid"], signal.SIGKILL)


def main() -> None:
    name = Path(sys.argv[0]).name
    if (STATE / "away").exists():
        fail(111, f"Connection refused\n{name}: cannot connect to server fake (errno=111)")
    {"qsub": qsub, "qstat": qstat, "qselect": qselect, "qsig": qsig, "qdel": qdel}[name](sys.argv[1:])


main()
