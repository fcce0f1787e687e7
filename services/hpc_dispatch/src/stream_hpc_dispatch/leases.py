"""The leases: what was promised to each pilot's worker, and what that worker has proved since.

Messages in, what they prove out; no I/O. Relay and broker are not trusted, so everything that is not proved is
dropped and counted, and changes nothing:

    frame    | is taken when                                              | else counted as
    ---------+------------------------------------------------------------+------------------------------------------
    any      | it decodes, and is ANNOUNCE or STATUS                      | malformed, unexpected_frame
    any      | its lease is known, and is the one of the subject          | unknown_lease, wrong_subject
    ANNOUNCE | its MAC was made with the lease's bootstrap secret         | bad_announcement
    ANNOUNCE | its key was not given up for a newer one                   | replayed_announcement
    STATUS   | the lease has announced a key                              | early_status
    STATUS   | its sequence number is above all seen under this key       | replayed_status
    STATUS   | it opens with the key of the lease and this announced key  | bad_status

An announcement repeated byte for byte is normal (each connect, every few seconds) and no sign of life: anybody on
the way can repeat it. Only STATUS is one.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from stream_core.envelope.keys import PublicKey, open_secret_of, verify_announcement
from stream_core.envelope.session import Opener, seal_stop, status_key, stop_key
from stream_core.errors import FrameError, SealError
from stream_core.ids import to_hex
from stream_core.wire import frames, payloads, subjects
from stream_core.wire.frames import Frame, FrameType

_REMEMBERED: Final = 256
"""Ended leases whose last messages may still be under way: no fault, and no use."""

_MOST: Final = 2**32 - 1
"""The pool carries counts in 32 bits."""

Note = Callable[[str, str], None]
"""Counts a fault: its kind, from the table above, and a detail without content."""


@dataclass(slots=True)
class Lease:
    """One lease: the secret behind it and the key announced under it."""

    id: bytes
    pilot: int
    bootstrap_secret: bytes = field(repr=False)
    announcement: payloads.Announcement | None = None
    _opener: Opener | None = field(default=None, repr=False)
    _last_sequence: int = -1
    _last_stop: int = 0
    _given_up: set[bytes] = field(default_factory=set)
    """X25519 halves of keys that a newer one replaced; a key is drawn per process, so none ever comes back."""

    open_secret: bytes = field(init=False, repr=False)
    """With which gateways prove what they are to its worker; derived once, since every snapshot of the pool has it."""

    def __post_init__(self) -> None:
        self.open_secret = open_secret_of(self.bootstrap_secret, lease_id=self.id)

    def announce(self, body: bytes) -> bool | None:
        """Take the body of an ANNOUNCE frame.

        Returns:
            None when it says what is known already, else whether it replaces another key.

        Raises:
            SealError: it does not verify, its key is no key, or the key was given up.
            FrameError: it verifies and does not decode, or a number in it can't be.
        """
        encoded = verify_announcement(body, lease_id=self.id, bootstrap_secret=self.bootstrap_secret)
        announcement = payloads.load(encoded, payloads.Announcement)
        _bounded("max_requests", announcement.max_requests, least=1)
        for offer in announcement.models:
            _bounded("context_window", offer.context_window, least=1)
        before = self.announcement
        if announcement == before:
            return None
        same_key = before is not None and _key(before) == _key(announcement)
        if not same_key:
            if announcement.x25519 in self._given_up:
                raise _ReplayedError("its key was given up for a newer one")
            PublicKey(announcement.mlkem768, announcement.x25519).load()
            if before is not None:
                self._given_up.add(before.x25519)
            self._believe(announcement)
        self.announcement = announcement
        return before is not None and not same_key

    def _believe(self, announcement: payloads.Announcement) -> None:
        key = status_key(self.bootstrap_secret, lease_id=self.id, instance=announcement.x25519)
        self.announcement, self._opener, self._last_sequence = announcement, Opener(key), -1

    def status(self, frame: Frame) -> payloads.Status:
        """Open a STATUS frame; the caller has checked `expects`.

        Raises:
            SealError: it does not open.
            FrameError: it opens and does not decode, or a number in it can't be.
        """
        if self._opener is None:
            raise SealError("no key was announced")
        plaintext = self._opener.open(frame)
        self._last_sequence = frame.sequence
        status = payloads.load(plaintext, payloads.Status)
        _bounded("running", status.running, least=0)
        return status

    def stop_frame(self, now_ms: int) -> bytes:
        """Build a STOP for the worker process that announced itself; empty when none has.

        Args:
            now_ms: unix milliseconds.
        """
        if self.announcement is None:
            return b""
        self._last_stop = max(self._last_stop + 1, now_ms)
        key = stop_key(self.bootstrap_secret, lease_id=self.id, instance=self.announcement.x25519)
        return seal_stop(key, lease_id=self.id, sequence=self._last_stop)

    @property
    def announced(self) -> bool:
        """Whether there is a key."""
        return self._opener is not None

    @property
    def last_sequence(self) -> int:
        """Of the newest STATUS; -1 before the first one."""
        return self._last_sequence

    @property
    def given_up(self) -> list[bytes]:
        """Keys that newer ones replaced, sorted."""
        return sorted(self._given_up)

    def restore(
        self, announcement: payloads.Announcement | None, last_sequence: int, given_up: Iterable[bytes]
    ) -> None:
        """Go on where an earlier run of this program stopped; all of it was verified then."""
        self._given_up = set(given_up)
        if announcement is not None:
            self._believe(announcement)
            self._last_sequence = last_sequence

    def expects(self, sequence: int) -> bool:
        """Whether a STATUS of this number is news."""
        return sequence > self._last_sequence


class _ReplayedError(SealError):
    """An announcement of a key that was replaced."""


@dataclass(frozen=True, slots=True)
class AnnouncementHeard:
    """A pilot's worker has a key, or a new one."""

    pilot: int
    restarted: bool


@dataclass(frozen=True, slots=True)
class StatusHeard:
    """A heartbeat that only this pilot's worker can have sent, and not before."""

    pilot: int
    status: payloads.Status


Heard = AnnouncementHeard | StatusHeard


class Leases:
    """All leases of this program."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._by_id: dict[bytes, Lease] = {}
        self._by_pilot: dict[int, Lease] = {}
        self._ended: deque[bytes] = deque(maxlen=_REMEMBERED)

    def grant(self, lease: Lease) -> None:
        """Listen to a lease from now on; must come before its worker can speak."""
        self._by_id[lease.id] = lease
        self._by_pilot[lease.pilot] = lease

    def revoke(self, pilot: int) -> None:
        """Forget a pilot's lease and its secret."""
        lease = self._by_pilot.pop(pilot)
        del self._by_id[lease.id]
        self._ended.append(lease.id)

    def of(self, pilot: int) -> Lease:
        """Find a pilot's lease; `KeyError` when it has none."""
        return self._by_pilot[pilot]

    def hear(self, subject: str, message: bytes) -> list[Heard]:
        """Take one message of `subjects.ALL_LEASES_OUT`.

        Args:
            subject: where it came.
            message: one or more frames.

        Returns:
            What it proves, in order.
        """
        try:
            lease_id = subjects.lease_of(subject)
            arrived = frames.split(message)
        except FrameError as error:
            self._note("malformed", error.message)
            return []
        heard = [self._frame(lease_id, frame) for frame in arrived]
        return [one for one in heard if one is not None]

    def _frame(self, lease_id: bytes, frame: Frame) -> Heard | None:
        name = to_hex(lease_id)
        if frame.type not in frames.TO_DISPATCH:
            self._note("unexpected_frame", f"{frame.type.name} from lease {name}")
            return None
        if frame.request_id != lease_id:
            self._note("wrong_subject", f"{frame.type.name} of lease {to_hex(frame.request_id)} came as lease {name}")
            return None
        lease = self._by_id.get(lease_id)
        if lease is None:
            if lease_id not in self._ended:
                self._note("unknown_lease", f"{frame.type.name} of lease {name}")
            return None
        if frame.type is FrameType.ANNOUNCE:
            return self._announce(lease, frame)
        return self._status(lease, frame)

    def _announce(self, lease: Lease, frame: Frame) -> Heard | None:
        try:
            replaced = lease.announce(frame.body)
        except _ReplayedError as error:
            self._note("replayed_announcement", f"lease {to_hex(lease.id)}: {error.message}")
        except (SealError, FrameError) as error:
            self._note("bad_announcement", f"lease {to_hex(lease.id)}: {error.message}")
        else:
            return None if replaced is None else AnnouncementHeard(lease.pilot, replaced)
        return None

    def _status(self, lease: Lease, frame: Frame) -> Heard | None:
        if not lease.announced:
            self._note("early_status", f"lease {to_hex(lease.id)} has announced no key")
        elif not lease.expects(frame.sequence):
            self._note("replayed_status", f"lease {to_hex(lease.id)}: number {frame.sequence} again")
        else:
            try:
                return StatusHeard(lease.pilot, lease.status(frame))
            except (SealError, FrameError) as error:
                self._note("bad_status", f"lease {to_hex(lease.id)}: {error.message}")
        return None


def _bounded(name: str, value: int, *, least: int) -> None:
    if not least <= value <= _MOST:
        raise FrameError(f"{name} {value}, from {least} to {_MOST:,}")


def _key(announcement: payloads.Announcement) -> tuple[bytes, bytes]:
    return announcement.mlkem768, announcement.x25519
