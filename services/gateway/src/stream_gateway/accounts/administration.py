"""What admins do with accounts: each act is one change in the store, in effect here at once and elsewhere soon."""

import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from stream_core.api_keys import new_key
from stream_core.errors import InvalidRequest
from stream_gateway.accounts.claims import user_id
from stream_gateway.accounts.directory import Directory
from stream_gateway.accounts.faults import AccountExists, NoSuchAccount
from stream_gateway.accounts.records import Group, Key, Project, Record, User
from stream_gateway.accounts.rights import refusal_of
from stream_gateway.accounts.snapshot import Snapshot
from stream_gateway.auth import Keyring

if TYPE_CHECKING:
    from stream_gateway.accounts.store import Change

_log = logging.getLogger(__name__)
_R = TypeVar("_R", bound=Record)


class Administration:
    """Acts of admins.

    Args:
        directory: the accounts.
        keyring: keys of the key file, which are looked at and never changed here.
        classes: gives the policy's privacy classes.
        clock: unix seconds.
    """

    def __init__(
        self,
        directory: Directory,
        keyring: Keyring,
        classes: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._keyring = keyring
        self._classes = classes
        self._clock = clock

    async def seen(self) -> Snapshot:
        """Give all accounts as they are now, also what other replicas have just done.

        Raises:
            AccountsOff: there are none.
            AccountsAway: the database does not answer.
        """
        await self._directory.refresh()
        return self._directory.snapshot

    def file_keys(self) -> list[Key]:
        """List the keys of the key file."""
        return self._keyring.all()

    async def add(self, record: User | Group | Project, by: str) -> str:
        """Add a user, group or project, whose id and time are made here; a user of an issuer has the id of a token's.

        Args:
            record: without id and time.
            by: id of the admin.

        Returns:
            Its id.

        Raises:
            AccountExists: another one has this name, or this subject of this issuer.
            InvalidRequest: its class is none of the policy's.
        """
        self._check_class(record)
        id_ = _new_id(type(record).__name__.lower())
        if isinstance(record, User) and record.issuer:
            id_ = user_id(record.issuer, record.subject)
        if isinstance(record, Group | Project):
            self._check_name(record)
        async with self._changing("added", id_, by) as change:
            await change.add(replace(record, id=id_, created=int(self._clock())))
        return id_

    async def alter(self, kind: type[_R], id_: str, alter: Callable[[_R], _R], by: str) -> None:
        """Change a record.

        Args:
            kind: of the record.
            id_: its id.
            alter: makes the new one of the one that is there.
            by: id of the admin.

        Raises:
            NoSuchAccount: there is none; a key of the key file can't be changed here.
            AccountExists: another one has its new name.
            InvalidRequest: its class is none of the policy's.
        """
        self._check_is_ours(id_)
        async with self._changing("changed", id_, by) as change:
            altered = alter(await change.find(kind, id_))
            self._check_class(altered)
            await change.rewrite(altered)

    async def drop_group(self, id_: str, by: str) -> None:
        """Delete a group; its users stay."""
        async with self._changing("deleted", id_, by) as change:
            await change.find(Group, id_)
            await change.drop_group(id_)

    async def enrol(self, kind: type[Group] | type[Project], id_: str, user: str, by: str, *, member: bool) -> None:
        """Put a user into a group or project, or take them out.

        Raises:
            NoSuchAccount: one of them is not there.
        """
        async with self._changing("enrolled" if member else "left", id_, by) as change:
            found: Group | Project = await change.find(kind, id_)
            await change.find(User, user)
            await (change.join if member else change.leave)(found, user)

    async def issue(self, wished: Key, by: str) -> tuple[str, str]:
        """Make a key.

        Args:
            wished: without id, hash and time.
            by: id of the admin.

        Returns:
            The key, to be shown once, and its id.

        Raises:
            NoSuchAccount: its user or project is not there.
            InvalidRequest: it would never be valid.
        """
        now = self._clock()
        self._check_class(wished)
        if wished.expires is not None and wished.expires <= now:
            raise InvalidRequest(f"expires: {wished.expires} is in the past, it is {int(now)}", param="expires")
        key, made = new_key(wished.name, now=now)
        record = replace(wished, id=_new_id("key"), prefix=made.prefix, sha256=made.sha256, created=made.created)
        async with self._changing("issued", record.id, by) as change:
            if record.user:
                await change.find(User, record.user)
            if record.project:
                project = await change.find(Project, record.project)
                if record.user and not await change.is_member(project, record.user):
                    words = f"project: the user {record.user} is not in the project {record.project}"
                    raise InvalidRequest(words, param="project")
            await change.add(record)
        return key, record.id

    async def revoke(self, id_: str, by: str) -> None:
        """Revoke a key for good; again changes nothing.

        Raises:
            NoSuchAccount: there is none in the store.
        """

        def revoked(key: Key) -> Key:
            return key if key.revoked is not None else replace(key, revoked=int(self._clock()))

        await self.alter(Key, id_, revoked, by)

    async def rotate(self, id_: str, overlap_s: int, by: str) -> tuple[str, str]:
        """Exchange a key for a new one with the same rights, limits, files and batches.

        Args:
            id_: of the old key.
            overlap_s: how long that goes on.
            by: id of the admin.

        Returns:
            The new key, to be shown once, and its id.

        Raises:
            NoSuchAccount: there is none in the store.
            InvalidRequest: it is not valid any more, or was exchanged already.
        """
        self._check_is_ours(id_)
        now = self._clock()
        async with self._changing("rotated", id_, by) as change:
            old = await change.find(Key, id_)
            refusal = refusal_of(old, now)
            if refusal is not None:
                raise InvalidRequest(f"{refusal.message}: make a new one")
            if old.replaced_by:
                raise InvalidRequest(f"this API key was exchanged for {old.replaced_by} already: rotate that one")
            key, made = new_key(old.name, now=now)
            fresh = replace(
                old, id=_new_id("key"), prefix=made.prefix, sha256=made.sha256, created=made.created, origin=old.owner
            )
            await change.add(fresh)
            await change.rewrite(replace(old, replaced_by=fresh.id, valid_until=int(now) + overlap_s))
        return key, fresh.id

    @contextlib.asynccontextmanager
    async def _changing(self, act: str, id_: str, by: str) -> "AsyncIterator[Change]":
        store = await self._directory.opened()
        async with store.change() as change:
            yield change
        _log.info("account changed", extra={"act": act, "account": id_, "by": by})
        await self._directory.refresh()

    def _check_class(self, record: Record) -> None:
        privacy, classes = record.rights.privacy, self._classes()
        if privacy is not None and privacy not in classes:
            raise InvalidRequest(f"privacy: {privacy[:80]!r} is not one of {', '.join(classes)}", param="privacy")

    def _check_name(self, record: Group | Project) -> None:
        snapshot = self._directory.snapshot
        there = snapshot.groups if isinstance(record, Group) else snapshot.projects
        if any(other.name == record.name for other in there.values()):
            words = f"name: there is a {type(record).__name__.lower()} {record.name!r} already"
            raise AccountExists(words, param="name")

    def _check_is_ours(self, id_: str) -> None:
        if any(key.id == id_ for key in self._keyring.all()):
            words = f"{id_} is a key of the key file: `stream keys` changes it on the machine that has the file"
            raise NoSuchAccount(words, param="id")


def _new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(8)}"
