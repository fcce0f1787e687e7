"""The sealed record: what comes back is what was sealed, for its own place, with its own key, unchanged."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_core.errors import FrameError, SealError
from stream_core.wire.payloads import Announcement, ModelOffer
from stream_hpc_dispatch.records import Record, seal, unseal

KEY, NONCE = b"k" * 32, b"n" * 12
RECORD = Record(
    lease=b"L" * 16,
    bootstrap_secret=b"a secret of exactly 32 bytes....",
    cluster="here",
    backend="local",
    model="tiny",
    fingerprint="f",
    expires=1000.5,
    counter=3,
    handle="1 2 3",
    phase="ready",
    announcement=Announcement(b"m" * 1184, b"x" * 32, [ModelOffer("tiny", "tiny-q4", 4096)], 8),
    given_up=[b"y" * 32],
    last_sequence=77,
    seen=999.0,
)
NAME = RECORD.lease.hex()
SEALED = seal(RECORD, KEY, bucket="leases", nonce=NONCE)


def test_it_comes_back_and_shows_no_secret():
    """The record opens at its place; neither its sealed form nor its repr hold the secret."""
    assert unseal(SEALED, KEY, bucket="leases", key=NAME) == RECORD
    assert RECORD.bootstrap_secret not in SEALED
    assert "secret" not in repr(RECORD)


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(position, change):
    """A record with any one byte changed is refused."""
    changed = bytearray(SEALED)
    changed[position] ^= change
    with pytest.raises((SealError, FrameError)):
        unseal(bytes(changed), KEY, bucket="leases", key=NAME)


@given(st.binary(max_size=200) | st.integers(0, len(SEALED) - 1).map(lambda size: SEALED[:size]))
def test_noise_and_parts_are_refused(value):
    """Noise, and a record cut short anywhere, are refused."""
    with pytest.raises((SealError, FrameError)):
        unseal(value, KEY, bucket="leases", key=NAME)


@pytest.mark.parametrize(
    ("key", "bucket", "name"),
    [(b"o" * 32, "leases", NAME), (KEY, "other", NAME), (KEY, "leases", (b"M" * 16).hex())],
)
def test_it_fits_its_place_only(key, bucket, name):
    """Another service's key, another bucket and another lease's name don't open it."""
    with pytest.raises(SealError):
        unseal(SEALED, key, bucket=bucket, key=name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"bootstrap_secret": b"short"}, "secret of 5 bytes, exactly 32"), ({"lease": b"L" * 3}, "another lease")],
)
def test_a_record_that_can_not_be_is_refused(changes, words):
    """A well-sealed record of a wrong shape is refused in words."""
    odd = msgspec.structs.replace(RECORD, **changes)
    with pytest.raises(FrameError, match=words):
        unseal(seal(odd, KEY, bucket="leases", nonce=NONCE), KEY, bucket="leases", key=odd.lease.hex())
