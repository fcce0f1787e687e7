"""A batch's life. Pure: records and the time in, records out.

    validating ──enqueued──▶ in_progress ──finish──▶ finalizing ──close──▶ completed
        │                        │
        ├──────── fail ──────────┼─────────────────▶ finalizing ──close──▶ failed
        ├─────── expire ─────────┼─────────────────▶ finalizing ──close──▶ expired
        └─────── cancel ─────────┴─────────────────▶ cancelling ──close──▶ cancelled

Validating and finalizing are the work of one runner at a time, which holds the batch for some seconds and renews
that; when it dies another one begins again, and both would write the very same.
"""

from typing import Final, Literal

from msgspec.structs import replace

from stream_core.errors import InvalidRequest
from stream_gateway.batches.records import BatchRecord, Ending, Problem, Status

Event = Literal["enqueued", "finish", "fail", "expire", "cancel", "close"]

CLOSED: Final[frozenset[Status]] = frozenset({"completed", "failed", "expired", "cancelled"})
_ENDINGS: Final[dict[Event, Ending]] = {
    "finish": "completed",
    "fail": "failed",
    "expire": "expired",
    "cancel": "cancelled",
}
_NEXT: Final[dict[tuple[Status, Event], Status]] = {
    ("validating", "enqueued"): "in_progress",
    ("validating", "fail"): "finalizing",
    ("validating", "expire"): "finalizing",
    ("validating", "cancel"): "cancelling",
    ("in_progress", "finish"): "finalizing",
    ("in_progress", "fail"): "finalizing",
    ("in_progress", "expire"): "finalizing",
    ("in_progress", "cancel"): "cancelling",
}


class IllegalEvent(InvalidRequest):
    """The batch is in a state in which this can't happen."""

    code = "invalid_batch_status"


def advance(record: BatchRecord, event: Event, now: float, *problems: Problem) -> BatchRecord:
    """Apply an event.

    Args:
        record: as it is.
        event: of the drawing above.
        now: unix seconds.
        problems: added to the record's.

    Raises:
        IllegalEvent: it can't happen in this status.
    """
    ending = _ENDINGS.get(event, record.ending)
    if event == "close" and record.status in {"finalizing", "cancelling"} and ending is not None:
        status: Status | None = ending
    else:
        status = _NEXT.get((record.status, event))
    if status is None:
        raise IllegalEvent(f"the batch {record.id} is {record.status}: {event} is not possible then")
    return replace(
        record,
        status=status,
        ending=ending,
        stamps={**record.stamps, status: now},
        problems=[*record.problems, *problems],
        holder="",
        held_until=0.0,
    )


def claim(record: BatchRecord, holder: str, now: float, hold_s: float) -> BatchRecord | None:
    """Take, or keep, the work of validating or finalizing; None while another one has it."""
    if record.holder not in {"", holder} and now < record.held_until:
        return None
    return replace(record, holder=holder, held_until=now + hold_s)


def line_code(ending: Ending | None) -> tuple[str, str]:
    """Tell (code, message) of a line that did not run before its batch ended so."""
    match ending:
        case "expired":
            return "batch_expired", "this request could not be executed before the completion window expired"
        case "cancelled":
            return "batch_cancelled", "the batch was cancelled before this request was executed"
        case _:
            return "batch_failed", "the batch failed before this request was executed"
