"""What somebody may use in the end: key, user, groups and project can each only take away."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_core.api_keys import Limits
from stream_core.errors import NotAllowed, Unauthenticated
from stream_gateway.accounts.principal import Subject
from stream_gateway.accounts.records import Group, Key, Project, Rights, User
from stream_gateway.accounts.rights import meet, strictest
from stream_gateway.accounts.snapshot import Snapshot, indexed

CLASSES = ("public", "internal", "restricted")
NAMES = st.none() | st.frozensets(st.sampled_from("abc"), max_size=3)
RIGHTS = st.builds(Rights, NAMES, NAMES, NAMES, st.none() | st.sampled_from([*CLASSES, "unknown"]))


def names(*listed: str) -> frozenset[str]:
    return frozenset(listed)


USER = User("user-1", "Ann", rights=Rights(names("local", "hpc"), None, None, "internal"), limits=Limits(5))
GROUP = Group("group-1", "physics", Rights(models=names("m1", "m2")))
OTHER = Group("group-2", "chemistry", Rights(models=names("m3"), privacy="public"))
PROJECT = Project(
    "project-1", "Dark", rights=Rights(names("hpc"), privacy="restricted"), members=names("user-1"), keeps_content=True
)
KEY = Key("key-1", "one", "sk-", "hash", user="user-1", project="project-1", limits=Limits(tokens_per_minute=7))


def snapshot(user: User = USER, project: Project = PROJECT, key: Key = KEY, groups: tuple = (GROUP, OTHER)) -> Snapshot:
    return indexed(1, [user], groups, [project], [key])


@given(RIGHTS, RIGHTS)
def test_meeting_only_takes_away(one: Rights, other: Rights) -> None:
    """Whatever both are, the result allows nothing that either forbids, and has the stricter class."""
    both = meet(one, other, CLASSES)
    assert both == meet(other, one, CLASSES) or {one.privacy, other.privacy} == {"unknown"}
    for field in ("tiers", "models", "clusters"):
        for each in (getattr(one, field), getattr(other, field)):
            found = getattr(both, field)
            assert each is None or (found is not None and found <= each)
    order = [None, *CLASSES, "unknown"]
    assert order.index(both.privacy) == max(order.index(one.privacy), order.index(other.privacy))


def test_all_of_them_count() -> None:
    """Lists intersect, groups add up among themselves, the class is the strictest, and all three spend."""
    user = dataclasses.replace(USER, groups=names("group-1"), told_groups=names("chemistry", "unheard"))
    principal = snapshot(user).by_key(KEY, 0, CLASSES)
    assert principal.tiers == {"hpc"}
    assert principal.models == {"m1", "m2", "m3"}
    assert principal.privacy == "restricted"
    assert principal.groups == {"physics", "chemistry", "unheard"}
    assert principal.keeps_content
    assert principal.subjects == (
        Subject("key", "key-1", KEY.limits),
        Subject("user", "user-1", USER.limits),
        Subject("project", "project-1", PROJECT.limits),
    )
    assert (principal.user, principal.project, principal.admin) == ("user-1", "project-1", False)


def test_an_unknown_class_is_the_strictest() -> None:
    """A class that the policy has dropped lets nobody see anything, whatever else counts."""
    assert strictest(("restricted", "dropped", None), CLASSES) == "dropped"
    assert strictest((None, None), CLASSES) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": dataclasses.replace(KEY, revoked=1)}, "revoked"),
        ({"key": dataclasses.replace(KEY, expires=100)}, "expired"),
        ({"key": dataclasses.replace(KEY, replaced_by="key-2", valid_until=100)}, "replaced by key-2"),
        ({"user": dataclasses.replace(USER, disabled=True)}, "user of these credentials is disabled"),
        ({"project": dataclasses.replace(PROJECT, disabled=True)}, "project 'Dark' is disabled"),
        ({"project": dataclasses.replace(PROJECT, members=names())}, "not in the project 'Dark' any more"),
    ],
)
def test_who_is_not_let_in(changes, words) -> None:
    """Each reason is told, and nobody acts for such a key in the background."""
    there = snapshot(**changes)
    with pytest.raises(Unauthenticated, match=words):
        there.by_key(there.keys["key-1"], 100, CLASSES)
    assert there.of("key-1", 100, CLASSES) is None
    assert snapshot().of("key-1", 100, CLASSES) is not None


def test_times_end_at_their_second() -> None:
    """A key is valid until its second, a replaced one until its overlap's."""
    key = dataclasses.replace(KEY, expires=100, valid_until=90, replaced_by="key-2")
    assert snapshot(key=key).of("key-1", 89.9, CLASSES) is not None
    assert snapshot(key=key).of("key-1", 90, CLASSES) is None


def test_who_acts_later_for_a_project_keeps_its_rules() -> None:
    """A batch's owner has the project's rights and limits then; who has left it, or names none, acts for none."""
    key = dataclasses.replace(KEY, project="")
    for id_ in ("key-1", "user:user-1"):
        principal = snapshot(key=key).of(id_, 0, CLASSES, "project-1")
        assert principal is not None
        assert (principal.project, principal.tiers, principal.privacy) == ("project-1", {"hpc"}, "restricted")
        assert principal.subjects[-1] == Subject("project", "project-1", PROJECT.limits)
        gone = (dataclasses.replace(PROJECT, disabled=True), dataclasses.replace(PROJECT, members=names()))
        assert [snapshot(key=key, project=each).of(id_, 0, CLASSES, "project-1") for each in gone] == [None, None]
        assert snapshot(key=key).of(id_, 0, CLASSES, "project-2") is None
        free = snapshot(key=key).of(id_, 0, CLASSES)
        assert free is not None
        assert free.project == ""


def test_a_request_names_its_project() -> None:
    """Where the key has none, the request may name one that its user is in, by id or name; a key's own goes first."""
    free = dataclasses.replace(KEY, project="")
    there = snapshot(key=free)
    assert there.by_key(free, 0, CLASSES).project == ""
    for wanted in ("project-1", "Dark"):
        assert there.by_key(free, 0, CLASSES, wanted).project == "project-1"
    with pytest.raises(NotAllowed, match="in no project 'Light'"):
        there.by_key(free, 0, CLASSES, "Light")
    with pytest.raises(NotAllowed):
        snapshot(key=free, project=dataclasses.replace(PROJECT, members=names())).by_key(free, 0, CLASSES, "Dark")
    assert snapshot().by_key(KEY, 0, CLASSES, "Light").project == "project-1"


def test_admins() -> None:
    """An admin's key is an admin key only if it was made one, and a key alone is not enough for a user who is none."""
    admin, key = dataclasses.replace(USER, admin=True), dataclasses.replace(KEY, admin=True)
    assert not snapshot(user=admin).by_key(KEY, 0, CLASSES).admin
    assert not snapshot(key=key).by_key(key, 0, CLASSES).admin
    assert snapshot(user=admin, key=key).by_key(key, 0, CLASSES).admin
    assert snapshot(user=admin).by_token(admin, CLASSES).admin


def test_a_token_limits_its_user_later_too() -> None:
    """Tiers that a token told hold for what runs after it in the user's name."""
    user = dataclasses.replace(USER, told_tiers=names("local"))
    assert snapshot(user).by_token(user, CLASSES).tiers == {"local"}
    assert snapshot(user).of("user:user-1", 0, CLASSES).tiers == {"local"}
