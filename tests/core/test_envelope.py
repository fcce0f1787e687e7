"""Keys and seals: what opens, and everything that must not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_core.envelope.keys import (
    HPKE_OVERHEAD,
    PublicKey,
    WorkerKey,
    seal_open,
    sign_announcement,
    verify_announcement,
)
from stream_core.envelope.session import Opener, Sealer, status_key, to_gateway_key, to_worker_key
from stream_core.errors import SealError
from stream_core.wire.frames import FrameType, header, split

LEASE, OTHER_LEASE, REQUEST, GATEWAY = b"l" * 16, b"m" * 16, b"r" * 16, b"g" * 16
WORKER, OPEN_SECRET = WorkerKey(), b"o" * 32


def clear(length: int, request_id: bytes = REQUEST, gateway: bytes = GATEWAY) -> bytes:
    return header(FrameType.OPEN, length + HPKE_OVERHEAD, request_id, gateway, 0)


@given(st.binary(max_size=2000))
def test_open_round_trip(plaintext):
    """What is sealed to a worker's announced key is opened by that worker, and adds exactly the stated bytes."""
    sealed = seal_open(
        plaintext, WORKER.public.load(), lease_id=LEASE, header=clear(len(plaintext)), open_secret=OPEN_SECRET
    )
    assert len(sealed) == len(plaintext) + HPKE_OVERHEAD
    opened = WORKER.open(sealed, lease_id=LEASE, header=clear(len(plaintext)), open_secret=OPEN_SECRET)
    assert opened == plaintext


@pytest.mark.parametrize(
    ("key", "lease", "head", "secret"),
    [
        (WorkerKey(), LEASE, clear(6), OPEN_SECRET),
        (WORKER, OTHER_LEASE, clear(6), OPEN_SECRET),
        (WORKER, LEASE, clear(6, request_id=b"x" * 16), OPEN_SECRET),
        (WORKER, LEASE, clear(6, gateway=b"x" * 16), OPEN_SECRET),
        (WORKER, LEASE, clear(6), bytes(32)),
    ],
    ids=["another worker", "another lease", "another request", "another return address", "nobody of ours"],
)
def test_open_is_bound_to_its_place(key, lease, head, secret):
    """An OPEN carried to another worker, lease, request or gateway, or sealed without the secret, does not open."""
    sealed = seal_open(b"secret", WORKER.public.load(), lease_id=LEASE, header=clear(6), open_secret=OPEN_SECRET)
    with pytest.raises(SealError):
        key.open(sealed, lease_id=lease, header=head, open_secret=secret)


@given(st.integers(0, HPKE_OVERHEAD + 5), st.integers(1, 255))
def test_open_changed_anywhere_fails(place, mask):
    """An OPEN with one byte changed does not open, wherever the byte is."""
    sealed = bytearray(
        seal_open(b"secret", WORKER.public.load(), lease_id=LEASE, header=clear(6), open_secret=OPEN_SECRET)
    )
    sealed[place] ^= mask
    with pytest.raises(SealError):
        WORKER.open(bytes(sealed), lease_id=LEASE, header=clear(6), open_secret=OPEN_SECRET)


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=5))
def test_session_round_trip(texts):
    """Frames sealed in order are opened in any order, each under its own number."""
    sealer, opener = Sealer(bytes(32), request_id=REQUEST, return_address=GATEWAY), Opener(bytes(32))
    frames = [split(sealer.seal(FrameType.DATA, text))[0] for text in texts]
    assert [opener.open(frame) for frame in reversed(frames)] == texts[::-1]
    assert [frame.sequence for frame in frames] == list(range(len(texts)))


@given(st.integers(0, 47), st.integers(1, 255))
def test_the_clear_header_is_sealed_too(place, mask):
    """A header with one bit changed breaks the tag: type, flags, ids and sequence number can't be altered."""
    (frame,) = split(Sealer(bytes(32), request_id=REQUEST, return_address=GATEWAY).seal(FrameType.DATA, b"text"))
    changed = bytearray(frame.header)
    changed[place] ^= mask
    sequence = int.from_bytes(changed[40:48], "big")
    with pytest.raises(SealError):
        Opener(bytes(32)).open(frame._replace(header=bytes(changed), sequence=sequence))


def test_keys_differ_by_direction_request_and_lease():
    """No two directions, requests, leases or worker instances share a key."""
    secret = bytes(32)
    keys = [
        to_worker_key(secret, lease_id=LEASE, request_id=REQUEST),
        to_gateway_key(secret, lease_id=LEASE, request_id=REQUEST),
        to_gateway_key(secret, lease_id=OTHER_LEASE, request_id=REQUEST),
        to_gateway_key(secret, lease_id=LEASE, request_id=b"x" * 16),
        status_key(secret, lease_id=LEASE, instance=b"a" * 32),
        status_key(secret, lease_id=LEASE, instance=b"b" * 32),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 for key in keys)


def test_announcement_cannot_be_swapped():
    """A relay that puts its own key into an announcement, or moves it to another lease, is refused."""
    body = sign_announcement(b"my key", lease_id=LEASE, bootstrap_secret=bytes(32))
    assert verify_announcement(body, lease_id=LEASE, bootstrap_secret=bytes(32)) == b"my key"
    for forged in (
        body[:32] + b"its key",
        sign_announcement(b"its key", lease_id=LEASE, bootstrap_secret=b"x" * 32),
        b"",
    ):
        with pytest.raises(SealError):
            verify_announcement(forged, lease_id=LEASE, bootstrap_secret=bytes(32))
    with pytest.raises(SealError):
        verify_announcement(body, lease_id=OTHER_LEASE, bootstrap_secret=bytes(32))


def test_wrong_key_sizes_name_the_numbers():
    """A public key of the wrong size is refused with both numbers."""
    with pytest.raises(SealError, match=r"3 \+ 32 bytes, exactly 1184 \+ 32"):
        PublicKey(b"abc", bytes(32))
