"""Accounts in a database: what is written is read, changes are numbered, and both kinds of database do the same."""

import asyncio
from dataclasses import replace

import pytest
from gateway.stage import until
from gateway_accounts.conftest import following

from stream_core.api_keys import Limits, new_key
from stream_core.errors import Unauthenticated
from stream_gateway.accounts.claims import Told
from stream_gateway.accounts.faults import AccountExists, NoSuchAccount
from stream_gateway.accounts.principal import Subject
from stream_gateway.accounts.records import Group, Key, Project, Rights, User

USER = User(
    "user-1",
    "Ann",
    "ann@example.org",
    issuer="https://id.example.org",
    subject="ann",
    admin=True,
    rights=Rights(frozenset({"local", "hpc"}), None, frozenset({"alpha"}), "internal"),
    limits=Limits(requests_per_minute=60, dollars_per_month=2.5),
    told_groups=frozenset({"physics"}),
    told_tiers=frozenset({"hpc"}),
    created=7,
)
GROUP = Group("group-1", "physics", Rights(models=frozenset({"m"})), 8)
PROJECT = Project("project-1", "Dark matter", keeps_content=True, limits=Limits(gpu_hours_per_month=9.5), created=9)


def key_record(name: str = "one", **fields) -> tuple[str, Key]:
    """A new key and its record."""
    key, made = new_key(name, now=10)
    return key, Key(made.id, name, made.prefix, made.sha256, created=10, **fields)


async def fill(store, *records) -> None:
    """Write records in one change."""
    async with store.change() as change:
        for record in records:
            await change.add(record)


async def test_what_is_written_is_read(store) -> None:
    """Every field of every record comes back as it was, members included; the number grows by one a change."""
    _, key = key_record(user=USER.id, project=PROJECT.id, whole=True, expires=11, valid_until=13, replaced_by="key-2")
    before = await store.revision()
    await fill(store, USER, GROUP, PROJECT, key)
    async with store.change() as change:
        for _ in range(2):
            await change.join(GROUP, USER.id)
            await change.join(PROJECT, USER.id)
    found = await store.snapshot()
    assert found.users == {USER.id: replace(USER, groups=frozenset({GROUP.id}))}
    assert found.groups == {GROUP.id: GROUP}
    assert found.projects == {PROJECT.id: replace(PROJECT, members=frozenset({USER.id}))}
    assert found.keys == {key.id: key}
    assert found.revision == await store.revision() == before + 2
    async with store.change() as change:
        assert await change.find(Key, key.id) == key
        await change.rewrite(replace(key, revoked=12, limits=Limits(concurrent_streams=3)))
        await change.leave(PROJECT, USER.id)
        await change.drop_group(GROUP.id)
    found = await store.snapshot()
    assert found.keys[key.id] == replace(key, revoked=12, limits=Limits(concurrent_streams=3))
    assert not found.projects[PROJECT.id].members
    assert not found.groups
    assert not found.users[USER.id].groups


async def test_a_change_is_whole_or_not_at_all(store) -> None:
    """A name that is taken undoes all of the change, and its number; what is not there is told."""
    await fill(store, GROUP)
    number = await store.revision()
    with pytest.raises(AccountExists):
        await fill(store, PROJECT, replace(GROUP, id="group-2"))
    with pytest.raises(AccountExists):
        await fill(store, replace(key_record()[1], user="user-nobody"))
    with pytest.raises(NoSuchAccount, match="no project 'project-1'"):
        async with store.change() as change:
            await change.find(Project, PROJECT.id)
    with pytest.raises(NoSuchAccount, match="user-1"):
        async with store.change() as change:
            await change.rewrite(USER)
    assert (await store.snapshot()).projects == {}
    assert await store.revision() == number


async def test_changes_at_once_are_all_counted(store) -> None:
    """Twenty changes at the same time are twenty numbers, and none is lost."""
    number = await store.revision()
    await asyncio.gather(*(fill(store, key_record(f"k{index}")[1]) for index in range(20)))
    found = await store.snapshot()
    assert (len(found.keys), found.revision) == (20, number + 20)


async def test_other_replicas_follow(place, store) -> None:
    """A key is known to a second replica, and not any more when it is revoked; the reason is told to its bearer."""
    _, record = key_record(user=USER.id, limits=Limits(tokens_per_minute=5))
    async with following(place) as directory:
        await directory.ready()
        with pytest.raises(Unauthenticated, match="unknown"):
            directory.by_hash(record.sha256, "")
        await fill(store, USER, record)
        await until(lambda: record.id in directory.snapshot.keys)
        principal = directory.by_hash(record.sha256, "")
        assert (principal.id, principal.user, principal.privacy) == (record.id, USER.id, "internal")
        assert principal.tiers == {"hpc"}
        assert principal.subjects == (
            Subject("key", record.id, record.limits),
            Subject("user", USER.id, USER.limits),
        )
        assert directory.of(record.id) == principal
        async with store.change() as change:
            await change.rewrite(replace(record, revoked=20))
        await until(lambda: directory.of(record.id) is None)
        with pytest.raises(Unauthenticated, match="revoked"):
            directory.by_hash(record.sha256, "")


async def test_what_is_remembered_of_a_key_ends_with_it(place, store) -> None:
    """A second look is the first one's, until the key's time is over or the policy has other classes."""
    _, record = key_record(expires=50, user=USER.id)
    await fill(store, USER, replace(record, rights=Rights(privacy="restricted")))
    now = [49.0]
    async with following(place, clock=lambda: now[0]) as directory:
        await directory.ready()
        principal = directory.by_hash(record.sha256, "")
        assert directory.by_hash(record.sha256, "") is principal
        assert principal.privacy == "restricted"
        directory._classes = lambda: ("public", "restricted", "internal")
        assert directory.by_hash(record.sha256, "").privacy == "internal"
        now[0] = 50.0
        with pytest.raises(Unauthenticated, match="expired"):
            directory.by_hash(record.sha256, "")


async def test_a_user_of_a_token_is_written_down(place, store) -> None:
    """Whoever is seen first is in the store soon, and there for another replica; later news replace what was told."""
    told = replace(USER, admin=False, rights=Rights(), limits=Limits())
    async with following(place) as one, following(place) as other:
        await one.ready()
        await other.ready()
        assert one.by_token(Told(told), "").id == "user:user-1"
        await until(lambda: told.id in other.snapshot.users)
        assert other.snapshot.users[told.id] == told
        news = replace(told, email="new@example.org", told_groups=frozenset())
        assert one.by_token(Told(news), "").groups == frozenset()
        await until(lambda: other.snapshot.users[told.id] == news)
        async with store.change() as change:
            await change.rewrite(replace(news, disabled=True))
        await until(lambda: one.of("user:user-1") is None)
        with pytest.raises(Unauthenticated, match="disabled"):
            one.by_token(Told(news), "")


async def test_a_user_who_cannot_be_written_holds_up_nobody(place, store) -> None:
    """A row that the database refuses is counted and given up; other users are written, keys are followed."""
    odd = replace(USER, id="user-odd", name=None)
    async with following(place) as directory:
        await directory.ready()
        directory.by_token(Told(odd), "")
        await until(lambda: directory._faults.counts["users_not_written"] == 1)
        directory.by_token(Told(USER), "")
        await until(lambda: USER.id in directory.snapshot.users)
        assert not directory._sightings
        assert "user-odd" not in directory.snapshot.users


async def test_tokens_that_differ_do_not_make_it_write_each_time(place, store) -> None:
    """Of a user who is known one change a minute is written down; each token still counts as it is."""
    told = replace(USER, admin=False, rights=Rights(), limits=Limits())
    other = replace(told, told_groups=frozenset({"chemistry"}))
    now = [100.0]
    async with following(place, clock=lambda: now[0]) as directory:
        await directory.ready()
        directory.by_token(Told(told), "")
        await until(lambda: told.id in directory.snapshot.users)
        directory.by_token(Told(other), "")
        await until(lambda: directory.snapshot.users[told.id] == other)
        assert directory.by_token(Told(told), "").groups == {"physics"}
        assert not directory._sightings
        now[0] += 60
        directory.by_token(Told(told), "")
        await until(lambda: directory.snapshot.users[told.id] == told)
