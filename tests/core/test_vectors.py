"""Golden bytes of protocol version 1: a peer of this version must produce and read exactly these."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey

from stream_core.envelope.keys import WorkerKey, open_secret_of, sign_announcement, verify_announcement
from stream_core.envelope.session import Opener, Sealer, seal_stop, status_key, stop_key, to_gateway_key, to_worker_key
from stream_core.wire.frames import FrameType, encode, split
from stream_core.wire.payloads import (
    Credit,
    End,
    Goaway,
    Head,
    Hello,
    Open,
    Resume,
    Status,
    Welcome,
    dump,
    dump_chunks,
    load,
    load_open,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "vectors/sealed_session_v1.json").read_text())
LEASE, REQUEST, GATEWAY = (bytes.fromhex(GOLDEN[name]) for name in ("lease", "request", "gateway"))
SECRET, BOOTSTRAP = (bytes.fromhex(GOLDEN[name]) for name in ("request_secret", "bootstrap_secret"))
NAMES = {"lease_id": LEASE, "request_id": REQUEST}


def _worker_key() -> WorkerKey:
    key = WorkerKey()
    key._private = MLKEM768X25519PrivateKey(
        mlkem.MLKEM768PrivateKey.from_seed_bytes(bytes.fromhex(GOLDEN["worker_mlkem768_seed"])),
        x25519.X25519PrivateKey.from_private_bytes(bytes.fromhex(GOLDEN["worker_x25519_private"])),
    )
    return key


def test_open():
    """The golden OPEN opens with its worker's key and says what it said (HPKE draws its own randomness: one way)."""
    (frame,) = split(bytes.fromhex(GOLDEN["open"]))
    opened, body = load_open(
        _worker_key().open(
            frame.body,
            lease_id=LEASE,
            header=frame.header,
            open_secret=open_secret_of(BOOTSTRAP, lease_id=LEASE),
        )
    )
    assert opened == Open(
        secret=SECRET,
        opened_at_ms=1763650000000,
        window=262144,
        path="/v1/chat/completions",
        headers={"x-request-id": "r"},
    )
    assert body.decode() == GOLDEN["request_body"]


def test_worker_to_gateway():
    """The worker's frames are sealed to exactly these bytes."""
    sealer = Sealer(to_gateway_key(SECRET, **NAMES), request_id=REQUEST, return_address=GATEWAY)
    frames = [
        sealer.seal(FrameType.DATA, b""),
        sealer.seal(FrameType.HEAD, dump(Head(200, "text/event-stream"))),
        sealer.seal(FrameType.DATA, dump_chunks([b"data: a\n\n", b"data: b\n\n"])),
        sealer.seal(FrameType.END, dump(End(18))),
    ]
    assert [frame.hex() for frame in frames] == GOLDEN["to_gateway"]


def test_gateway_to_worker():
    """The gateway's control frames are sealed to exactly these bytes."""
    sealer = Sealer(to_worker_key(SECRET, **NAMES), request_id=REQUEST, return_address=GATEWAY)
    frames = [
        sealer.seal(FrameType.CREDIT, Credit(3, 262162).dump()),
        sealer.seal(FrameType.RESUME, Resume(2).dump()),
        sealer.seal(FrameType.CANCEL, b""),
    ]
    assert [frame.hex() for frame in frames] == GOLDEN["to_worker"]


def test_announce_and_status():
    """Announcement and heartbeat verify, and are made of exactly these bytes."""
    (frame,) = split(bytes.fromhex(GOLDEN["announce"]))
    said = verify_announcement(frame.body, lease_id=LEASE, bootstrap_secret=BOOTSTRAP)
    assert said.decode() == GOLDEN["announcement"]
    assert frame.body == sign_announcement(said, lease_id=LEASE, bootstrap_secret=BOOTSTRAP)
    (frame,) = split(bytes.fromhex(GOLDEN["status"]))
    instance = x25519.X25519PrivateKey.from_private_bytes(bytes.fromhex(GOLDEN["worker_x25519_private"]))
    key = status_key(BOOTSTRAP, lease_id=LEASE, instance=instance.public_key().public_bytes_raw())
    assert load(Opener(key).open(frame), Status) == Status(running=3)


def test_stop():
    """A STOP is made of exactly these bytes."""
    instance = x25519.X25519PrivateKey.from_private_bytes(bytes.fromhex(GOLDEN["worker_x25519_private"]))
    key = stop_key(BOOTSTRAP, lease_id=LEASE, instance=instance.public_key().public_bytes_raw())
    assert seal_stop(key, lease_id=LEASE, sequence=1763650000000).hex() == GOLDEN["stop"]


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("hello", Hello(LEASE.hex(), "ticket", "w")),
        ("welcome", Welcome("relay", 524288, 983040)),
        ("goaway", Goaway("bye")),
    ],
)
def test_clear_frames(name, payload):
    """HELLO, WELCOME and GOAWAY are exactly these bytes."""
    assert encode(FrameType[name.upper()], dump(payload)).hex() == GOLDEN[name]
