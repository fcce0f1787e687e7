"""What a lease takes for true, and what a relay or broker can do to it: nothing."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_core.envelope.keys import WorkerKey, sign_announcement
from stream_core.envelope.session import Opener, Sealer, status_key, stop_key
from stream_core.wire import frames, subjects
from stream_core.wire.frames import FrameType
from stream_core.wire.payloads import Announcement, ModelOffer, Status, dump
from stream_hpc_dispatch.leases import AnnouncementHeard, Lease, Leases, StatusHeard

ID, OTHER_ID = b"L" * 16, b"M" * 16
SECRET, OTHER_SECRET = b"s" * 32, b"t" * 32
OFFER = ModelOffer("tiny", "tiny-q4", 4096)
KEYS = [WorkerKey().public for _ in range(3)]


@dataclass
class Worker:
    """Speaks under a lease as a worker does."""

    lease: bytes = ID
    secret: bytes = SECRET
    key: int = 0
    sealer: Sealer = field(init=False)

    def __post_init__(self):
        key = status_key(self.secret, lease_id=self.lease, instance=KEYS[self.key].x25519)
        self.sealer = Sealer(key, request_id=self.lease)

    def announce(self, *, body=None, **changes):
        said = {"mlkem768": KEYS[self.key].mlkem768, "x25519": KEYS[self.key].x25519, "models": [OFFER]}
        said |= {"max_requests": 8} | changes
        body = dump(Announcement(**said)) if body is None else body
        signed = sign_announcement(body, lease_id=self.lease, bootstrap_secret=self.secret)
        return frames.encode(FrameType.ANNOUNCE, signed, request_id=self.lease)

    def status(self, body=None, **said):
        return self.sealer.seal(FrameType.STATUS, dump(Status(**{"running": 0} | said)) if body is None else body)


@pytest.fixture
def faults():
    return Counter()


@pytest.fixture
def leases(faults):
    known = Leases(lambda kind, _detail: faults.update([kind]))
    known.grant(Lease(ID, 1, SECRET))
    known.grant(Lease(OTHER_ID, 2, OTHER_SECRET))
    return known


def hear(leases, message, lease=ID):
    """Deliver a message on a lease's own subject."""
    return leases.hear(subjects.lease_out(lease), message)


def test_announcement_and_status_are_taken(leases, faults):
    """A worker with the lease's secret is believed: its key, its models, its heartbeats, several in one message."""
    worker = Worker()
    heard = hear(leases, worker.announce() + worker.status(running=3) + worker.status(running=4))
    assert heard == [
        AnnouncementHeard(1, restarted=False),
        StatusHeard(1, Status(running=3)),
        StatusHeard(1, Status(running=4)),
    ]
    announcement = leases.of(1).announcement
    assert (announcement.x25519, announcement.models, announcement.max_requests) == (KEYS[0].x25519, [OFFER], 8)
    assert not faults


def test_repeated_announcement_is_no_news_and_keeps_the_count(leases, faults):
    """The same announcement again says nothing new, and opens no door for old STATUS frames."""
    worker = Worker()
    first, status = worker.announce(), worker.status()
    hear(leases, first + status)
    assert hear(leases, first) == []
    assert hear(leases, status) == []
    assert faults == {"replayed_status": 1}


def test_same_key_with_other_models_is_an_update(leases, faults):
    """A worker may say more about itself under its key; its heartbeats count on."""
    worker = Worker()
    status = worker.status()
    hear(leases, worker.announce() + status)
    assert hear(leases, worker.announce(max_requests=9)) == [AnnouncementHeard(1, restarted=False)]
    assert leases.of(1).announcement.max_requests == 9
    assert hear(leases, status) == []
    assert faults == {"replayed_status": 1}


def test_restarted_worker_replaces_its_key_for_good(leases, faults):
    """Another key under the lease's secret replaces the first; the old announcement and STATUS are refused then."""
    old, new = Worker(), Worker(key=1)
    first, stale = old.announce() + old.status(), old.status()
    hear(leases, first)
    assert hear(leases, new.announce() + new.status()) == [
        AnnouncementHeard(1, restarted=True),
        StatusHeard(1, Status(running=0)),
    ]
    assert hear(leases, first) == []
    assert hear(leases, stale) == []
    assert leases.of(1).announcement.x25519 == KEYS[1].x25519
    assert faults == {"replayed_announcement": 1, "replayed_status": 1, "bad_status": 1}


@pytest.mark.parametrize(
    ("message", "subject", "kind"),
    [
        (b"", subjects.lease_out(ID), "malformed"),
        (b"noise" * 20, subjects.lease_out(ID), "malformed"),
        (Worker().announce()[:-1], subjects.lease_out(ID), "malformed"),
        (Worker().announce(), "stream.v1.lease.nonsense.out", "malformed"),
        (frames.encode(FrameType.DATA, b"x", request_id=ID), subjects.lease_out(ID), "unexpected_frame"),
        (Worker().announce(), subjects.lease_out(OTHER_ID), "wrong_subject"),
        (Worker(lease=b"N" * 16).announce(), subjects.lease_out(b"N" * 16), "unknown_lease"),
        (Worker(secret=OTHER_SECRET).announce(), subjects.lease_out(ID), "bad_announcement"),
        (frames.encode(FrameType.ANNOUNCE, b"", request_id=ID), subjects.lease_out(ID), "bad_announcement"),
        (Worker().announce(body=b"{}"), subjects.lease_out(ID), "bad_announcement"),
        (Worker().announce(x25519=b"short"), subjects.lease_out(ID), "bad_announcement"),
        (Worker().announce(max_requests=0), subjects.lease_out(ID), "bad_announcement"),
        (Worker().announce(max_requests=2**32), subjects.lease_out(ID), "bad_announcement"),
        (Worker().announce(models=[ModelOffer("m", "m", -1)]), subjects.lease_out(ID), "bad_announcement"),
        (Worker().announce(mlkem768=b"\xff" * 1184), subjects.lease_out(ID), "bad_announcement"),
        (Worker().status(), subjects.lease_out(ID), "early_status"),
    ],
)
def test_what_proves_nothing_is_dropped_and_counted(leases, faults, message, subject, kind):
    """Each fault is counted under its own name, and the lease stays without a key."""
    assert leases.hear(subject, message) == []
    assert faults == {kind: 1}
    assert leases.of(1).announcement is None


def test_announcement_of_one_lease_fits_no_other(leases, faults):
    """The body of one lease's announcement under another lease's header and subject does not verify."""
    body = frames.split(Worker().announce())[0].body
    assert hear(leases, frames.encode(FrameType.ANNOUNCE, body, request_id=OTHER_ID), OTHER_ID) == []
    assert faults == {"bad_announcement": 1}


def test_status_is_bound_to_its_number_and_key(leases, faults):
    """A STATUS under another number, from another key, or with a body that does not decode is dropped."""
    worker = Worker()
    hear(leases, worker.announce() + worker.status())
    frame = frames.split(worker.status())[0]
    hear(leases, frames.encode(FrameType.STATUS, frame.body, request_id=ID, sequence=7))
    assert hear(leases, Worker(key=1).status() + Worker(secret=OTHER_SECRET).status()) == []
    assert faults == {"bad_status": 1, "replayed_status": 2}
    assert hear(leases, worker.status(body=b"[]")) == []
    assert hear(leases, worker.status(running=-1)) == []
    assert faults["bad_status"] == 3
    assert hear(leases, worker.status(running=1)) == [StatusHeard(1, Status(running=1))]


def test_forged_number_does_not_silence_the_worker(leases):
    """A frame that does not open never moves the counter, however high its number is."""
    worker = Worker()
    hear(leases, worker.announce() + frames.encode(FrameType.STATUS, bytes(40), request_id=ID, sequence=2**63))
    assert hear(leases, worker.status()) == [StatusHeard(1, Status(running=0))]


def test_stop_frames_open_with_the_announced_key_and_always_count_on(leases):
    """A STOP is for the process that announced itself, and each is newer than the last, whatever the clock does."""
    lease = leases.of(1)
    assert lease.stop_frame(1000) == b""
    hear(leases, Worker().announce())
    first, second = (frames.split(lease.stop_frame(now))[0] for now in (1000, 900))
    opener = Opener(stop_key(SECRET, lease_id=ID, instance=KEYS[0].x25519))
    assert [opener.open(frame) for frame in (first, second)] == [b"", b""]
    assert first.sequence == 1000
    assert second.sequence > first.sequence


def test_last_words_of_an_ended_lease_are_no_fault(leases, faults):
    """What was still under way when a lease ended is dropped without a fault."""
    worker = Worker()
    leases.revoke(1)
    assert hear(leases, worker.announce()) == []
    assert not faults
    with pytest.raises(KeyError):
        leases.of(1)


def test_secret_is_not_printed(leases):
    """A lease in a log or a traceback shows no secret."""
    hear(leases, Worker().announce())
    assert repr(SECRET)[2:-1] not in repr(leases.of(1))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_changed_bytes_prove_nothing(data):
    """Whatever one byte of a message becomes, it is not believed: only what was really said is heard."""
    faults = Counter()
    leases = Leases(lambda kind, _detail: faults.update([kind]))
    leases.grant(Lease(ID, 1, SECRET))
    worker = Worker()
    hear(leases, worker.announce())
    message = bytearray(data.draw(st.sampled_from([worker.status(running=2), Worker(key=1).announce()])))
    index = data.draw(st.integers(0, len(message) - 1))
    message[index] ^= data.draw(st.integers(1, 255))
    heard = hear(leases, bytes(message))
    unauthenticated = range(24, frames.HEADER_BYTES)  # of ANNOUNCE: return address and number mean nothing there
    is_announcement = message[1] == FrameType.ANNOUNCE
    if is_announcement and (index in unauthenticated or index == 3):
        assert leases.of(1).announcement.x25519 in {KEYS[0].x25519, KEYS[1].x25519}
    else:
        assert heard == []
        assert sum(faults.values()) == 1
        assert leases.of(1).announcement.x25519 == KEYS[0].x25519
