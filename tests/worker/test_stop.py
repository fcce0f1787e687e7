"""hpc_dispatch tells a worker to stop over the worker's own channel; nobody else can, and no older STOP counts."""

import pytest

from stream_core.envelope.keys import WorkerKey
from stream_core.envelope.session import seal_stop, stop_key
from stream_core.errors import SealError
from stream_core.wire.frames import split
from stream_worker.serve import Herald

LEASE, OTHER = b"L" * 16, b"M" * 16
SECRET = b"s" * 32
KEY, ANOTHER = WorkerKey(), WorkerKey()


@pytest.fixture
def herald():
    return Herald(LEASE, SECRET, KEY, [], 8)


def stop(sequence, lease=LEASE, secret=SECRET, key=KEY):
    """A STOP as hpc_dispatch makes it."""
    made = stop_key(secret, lease_id=lease, instance=key.public.x25519)
    return split(seal_stop(made, lease_id=lease, sequence=sequence))[0]


def test_a_newer_stop_is_taken_and_the_same_one_never_again(herald):
    """A STOP counts once: a relay that keeps it stops nothing later."""
    herald.check_stop(stop(5))
    for old in (5, 4):
        with pytest.raises(SealError):
            herald.check_stop(stop(old))
    herald.check_stop(stop(6))


@pytest.mark.parametrize(
    "forged",
    [stop(7, lease=OTHER), stop(7, secret=b"t" * 32), stop(7, key=ANOTHER)],
    ids=["of another lease", "by who has no secret", "for the process before"],
)
def test_a_stop_that_is_not_for_this_process_is_refused(herald, forged):
    """Lease, secret and process are all bound."""
    with pytest.raises(SealError):
        herald.check_stop(forged)
    herald.check_stop(stop(1))  # and the forged number has not silenced dispatch


def test_a_changed_stop_is_refused(herald):
    """Any bit of header and tag counts."""
    whole = stop(3)
    for place in (*range(8, 24), *range(40, len(whole.wire))):
        changed = bytearray(whole.wire)
        changed[place] ^= 1
        with pytest.raises(SealError):
            herald.check_stop(split(bytes(changed))[0])
    herald.check_stop(whole)
