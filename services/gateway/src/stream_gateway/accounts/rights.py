"""What somebody may use in the end: the least of what key, user, groups and project may. Pure.

Nothing widens: each of them can only take away. A group that lists nothing takes nothing away; groups that list
something add up among themselves, since a user is put into a group to be given what it has.
"""

from collections.abc import Iterable, Sequence

from stream_core import privacy
from stream_core.errors import NotAllowed, Unauthenticated
from stream_gateway.accounts.principal import Principal, Subject
from stream_gateway.accounts.records import USER_MARK, Group, Key, Project, Rights, User


def meet(one: Rights, other: Rights, classes: Sequence[str]) -> Rights:
    """Give what both allow, with the stricter class.

    Args:
        one: any.
        other: any.
        classes: of the policy, the least confidential first.
    """
    return Rights(
        _both(one.tiers, other.tiers),
        _both(one.models, other.models),
        _both(one.clusters, other.clusters),
        strictest((one.privacy, other.privacy), classes),
    )


def strictest(names: Iterable[str | None], classes: Sequence[str]) -> str | None:
    """Tell the most confidential class; one that the policy does not know, which nobody may see, is above all."""
    known = [name for name in names if name is not None]
    return privacy.strictest(classes, *known) if known else None


def together(groups: Iterable[Group], classes: Sequence[str]) -> Rights:
    """Give what groups allow together: lists add up, and the strictest class counts."""
    found = [group.rights for group in groups]
    return Rights(
        _sum(rights.tiers for rights in found),
        _sum(rights.models for rights in found),
        _sum(rights.clusters for rights in found),
        strictest((rights.privacy for rights in found), classes),
    )


def refusal_of(key: Key, now: float) -> Unauthenticated | None:
    """Tell why a key is not valid now; None when it is.

    The words go to whoever holds the whole key, so they help nobody to guess one.
    """
    if key.revoked is not None:
        return Unauthenticated("this API key was revoked")
    if key.expires is not None and key.expires <= now:
        return Unauthenticated("this API key has expired")
    if key.valid_until is not None and key.valid_until <= now:
        return Unauthenticated(f"this API key was replaced by {key.replaced_by}, and its time beside that is over")
    return None


def principal_of(
    *,
    key: Key | None,
    user: User | None,
    groups: Sequence[Group],
    project: Project | None,
    classes: Sequence[str],
) -> Principal:
    """Put together what all of them say.

    Args:
        key: that was shown; None: a token was.
        user: whose it is; there is one if there is no key.
        groups: the user's.
        project: that they work for.
        classes: of the policy, the least confidential first.

    Raises:
        Unauthenticated: user or project are disabled, or the user has left the key's project.
    """
    rights = Rights()
    subjects = []
    if key is not None:
        rights = key.rights
        subjects.append(Subject("key", key.owner, key.limits))
    if user is not None:
        if user.disabled:
            raise Unauthenticated("the user of these credentials is disabled")
        for each in (user.rights, Rights(user.told_tiers), together(groups, classes)):
            rights = meet(rights, each, classes)
        subjects.append(Subject("user", user.id, user.limits))
    if project is not None:
        if project.disabled:
            raise Unauthenticated(f"the project {project.name!r} is disabled")
        if user is not None and user.id not in project.members:
            raise Unauthenticated(f"the user of these credentials is not in the project {project.name!r} any more")
        rights = meet(rights, project.rights, classes)
        subjects.append(Subject("project", project.id, project.limits))
    return Principal(
        id=key.owner if key is not None else f"{USER_MARK}{user.id if user is not None else ''}",
        tiers=rights.tiers,
        privacy=rights.privacy,
        clusters=rights.clusters,
        whole=key is not None and key.whole,
        models=rights.models,
        user=user.id if user is not None else "",
        project=project.id if project is not None else "",
        groups=frozenset(group.name for group in groups) | (user.told_groups if user is not None else frozenset()),
        subjects=tuple(subjects),
        admin=(key is None or key.admin) and (user is None or user.admin),
        keeps_content=project is not None and project.keeps_content,
    )


def chosen_project(wanted: str, user: User, projects: Iterable[Project]) -> Project:
    """Find the project that a request names, by id or name, among those that its user is in.

    Raises:
        NotAllowed: the user is in no project of this name.
    """
    for project in projects:
        if user.id in project.members and wanted in {project.id, project.name}:
            return project
    raise NotAllowed(f"openai-project: you are in no project {wanted[:80]!r}", param="openai-project")


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _sum(sets: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    listed = [each for each in sets if each is not None]
    return frozenset().union(*listed) if listed else None
