"""`stream status`: what of a running `stream up` is alive, by process id and by probe."""

import http.client
from dataclasses import dataclass

from stream_cli import engines, leftovers
from stream_cli.home import Home
from stream_cli.readiness import dialled, states


@dataclass(frozen=True)
class Line:
    """One program's state."""

    name: str
    pid: int
    alive: bool
    note: str = ""


def status(home: Home) -> list[Line]:
    """Look at everything that `stream up` wrote down; no lines when it does not run."""
    record = leftovers.read(home)
    if record is None:
        return []
    lines = [Line("stream up", record.pid, record.alive)]
    for name, (pid, _) in record.programs.items():
        alive = record.program_alive(name)
        note = _gateway_note(home, record) if name == "gateway" and alive and record.port else ""
        lines.append(Line(name, pid, alive and not note.startswith("not "), note))
    return lines


def _gateway_note(home: Home, record: leftovers.Record) -> str:
    host = dialled(record.host).strip("[]")
    code, body, reason = engines.ask(record.port, "/readyz", host=host)
    if code != http.client.OK:
        return f"not ready: {body.decode('utf-8', 'replace').strip()[:200] or reason}"
    try:
        key = home.api_key.read_text(encoding="utf-8").strip()
    except OSError:
        return f"port {record.port}"
    faults = states(engines.ask(record.port, "/v1/models", host=host, key=key)[1])
    models = [name if not fault else f"{name} ({fault})" for name, fault in faults.items()]
    return f"port {record.port}, models: {', '.join(models) or 'none'}"
