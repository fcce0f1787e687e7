"""NATS subjects of the data plane, built and parsed here and nowhere else.

    stream.v1.lease.<lease>.in     to one worker: OPEN, BODY, CREDIT, RESUME, CANCEL; STOP
    stream.v1.lease.<lease>.out    from one worker to hpc_dispatch: ANNOUNCE, STATUS
    stream.v1.gw.<gateway>         fan-in of one gateway replica: HEAD, DATA, END, ERROR of all its requests

Ids are 32 hex digits (`stream_core.ids`), so a subject can't be forged with dots or wildcards.
"""

from stream_core.errors import FrameError
from stream_core.ids import from_hex, to_hex

_PREFIX = "stream.v1"
ALL_LEASES_OUT = f"{_PREFIX}.lease.*.out"
ALL_LEASES_IN = f"{_PREFIX}.lease.*.in"
ALL_GATEWAYS = f"{_PREFIX}.gw.*"


def lease_in(lease_id: bytes) -> str:
    """Name the subject that reaches the worker of a lease."""
    return f"{_PREFIX}.lease.{to_hex(lease_id)}.in"


def lease_out(lease_id: bytes) -> str:
    """Name the subject on which the worker of a lease speaks to hpc_dispatch."""
    return f"{_PREFIX}.lease.{to_hex(lease_id)}.out"


def gateway_in(gateway_id: bytes) -> str:
    """Name the fan-in subject of one gateway replica."""
    return f"{_PREFIX}.gw.{to_hex(gateway_id)}"


def lease_of(subject: str) -> bytes:
    """Read the lease id from a `lease_in` or `lease_out` subject.

    Raises:
        FrameError: the subject is neither.
    """
    parts = subject.split(".")
    match parts:
        case ["stream", "v1", "lease", lease, "in" | "out"]:
            try:
                return from_hex(lease)
            except ValueError as error:
                raise FrameError(f"subject {subject!r}: {error}") from error
        case _:
            raise FrameError(f"subject {subject!r} names no lease")
