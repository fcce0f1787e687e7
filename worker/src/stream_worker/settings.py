"""The worker's own settings: environment `STREAM_WORKER__*`. What it is to do comes as a `PilotJob` on its input."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from stream_core.settings import ProgramSettings, TraceSettings, program_config
from stream_worker.desk import MAX_WINDOW

Seconds = Annotated[float, Field(gt=0)]


class WorkerSettings(ProgramSettings):
    """Everything an operator can set on the node."""

    program: ClassVar[str] = "worker"
    model_config = program_config("worker")

    traces: TraceSettings = TraceSettings()
    """The node must reach its endpoint; its spans need the extra `otel`."""
    status_interval_s: Seconds = 2.0
    announce_interval_s: Seconds = 10.0
    keepalive_s: Seconds = 5.0
    """A request whose engine is silent for this long sends a sign of life."""
    gateway_lost_s: Seconds = 45.0
    """A request whose gateway is silent for this long is aborted."""
    drain_s: Seconds = 10.0
    """How long running requests may go on after SIGTERM; and how long before the lease's end new ones stop."""
    max_body: Annotated[int, Field(ge=1024)] = 64 * 1024 * 1024
    """Bytes of one OpenAI request."""
    max_window: Annotated[int, Field(ge=256 * 1024)] = MAX_WINDOW
    """Bytes of one answer that are kept until its gateway has them; its window may grow up to this."""
    reconnect_first_s: Seconds = 0.05
    reconnect_most_s: Seconds = 5.0
    orphan_s: Seconds = 600.0
    """Without any relay for this long the worker ends by itself: nobody can reach it, and its node is paid for."""
    engine_restarts: Annotated[int, Field(ge=0)] = 2
    """How often an engine that dies is started again within the lease; after that the worker ends and says why."""
    node_folder: Path | None = None
    """Where the engine's log and key are kept; None takes a private temporary folder."""
