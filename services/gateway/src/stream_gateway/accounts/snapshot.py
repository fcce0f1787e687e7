"""Everything that is known of accounts at one moment, in memory: whom a key or token belongs to. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from stream_core.errors import NotAllowed, Unauthenticated
from stream_gateway.accounts.principal import Principal
from stream_gateway.accounts.records import USER_MARK, Group, Key, Project, User
from stream_gateway.accounts.rights import chosen_project, principal_of, refusal_of


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of all accounts."""

    revision: int = 0
    users: Mapping[str, User] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    projects: Mapping[str, Project] = field(default_factory=dict)
    keys: Mapping[str, Key] = field(default_factory=dict)
    """By id, as all of them."""
    _by_hash: dict[str, Key] = field(default_factory=dict)
    _by_owner: dict[str, list[Key]] = field(default_factory=dict)
    _by_group_name: dict[str, Group] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._by_hash.update((key.sha256, key) for key in self.keys.values())
        for key in sorted(self.keys.values(), key=lambda key: key.created):
            self._by_owner.setdefault(key.owner, []).insert(0, key)
        self._by_group_name.update((group.name, group) for group in self.groups.values())

    def key_of(self, sha256: str) -> Key | None:
        """Find a key by the SHA-256 of the whole; one lookup, whatever is asked for."""
        return self._by_hash.get(sha256)

    def by_key(self, key: Key, now: float, classes: Sequence[str], wanted: str = "") -> Principal:
        """Tell whom a key makes its bearer.

        Args:
            key: one of this snapshot.
            now: unix seconds.
            classes: of the policy, the least confidential first.
            wanted: project that the request names; it counts where the key has a user and no project.

        Raises:
            Unauthenticated: it is not valid now, or its user or project is not.
            NotAllowed: the user is not in the wanted project.
        """
        if (refusal := refusal_of(key, now)) is not None:
            raise refusal
        user = self.users[key.user] if key.user else None
        return principal_of(
            key=key,
            user=user,
            groups=self.groups_of(user) if user is not None else (),
            project=self._project(key.project, user, wanted),
            classes=classes,
        )

    def by_token(self, user: User, classes: Sequence[str], wanted: str = "") -> Principal:
        """Tell whom a token makes its bearer; arguments and errors as of `by_key`.

        Args:
            user: with what the token tells of them.
            classes: of the policy.
            wanted: project that the request names.
        """
        return principal_of(
            key=None,
            user=user,
            groups=self.groups_of(user),
            project=self._project("", user, wanted),
            classes=classes,
        )

    def of(self, id_: str, now: float, classes: Sequence[str], project: str = "") -> Principal | None:
        """Find what a principal may use now that asked earlier; None: nothing any more.

        Args:
            id_: of the principal.
            now: unix seconds.
            classes: of the policy, the least confidential first.
            project: id of the one that it worked for; who may not work for it any more, may do nothing for it.
        """
        try:
            if id_.startswith(USER_MARK):
                user = self.users.get(id_.removeprefix(USER_MARK))
                return self.by_token(user, classes, project) if user is not None else None
            valid = (key for key in self._by_owner.get(id_, ()) if refusal_of(key, now) is None)
            key = next(valid, None)  # of keys that were exchanged for one another the newest
            return self.by_key(key, now, classes, project) if key is not None else None
        except (NotAllowed, Unauthenticated):
            return None

    def groups_of(self, user: User) -> list[Group]:
        """List the groups of a user: those that an admin put them in, and those of their token that are known here."""
        named = (self._by_group_name[name] for name in user.told_groups if name in self._by_group_name)
        given = (self.groups[id_] for id_ in user.groups if id_ in self.groups)
        return sorted({group.id: group for group in (*given, *named)}.values(), key=lambda group: group.id)

    def _project(self, id_: str, user: User | None, wanted: str) -> Project | None:
        if id_:
            return self.projects[id_]
        return chosen_project(wanted, user, self.projects.values()) if wanted and user is not None else None


def indexed(
    revision: int,
    users: Iterable[User],
    groups: Iterable[Group],
    projects: Iterable[Project],
    keys: Iterable[Key],
) -> Snapshot:
    """Build a snapshot of its parts."""
    return Snapshot(
        revision,
        {user.id: user for user in users},
        {group.id: group for group in groups},
        {project.id: project for project in projects},
        {key.id: key for key in keys},
    )
