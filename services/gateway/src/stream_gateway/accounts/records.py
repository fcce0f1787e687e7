"""What is known of users, groups, projects and keys. Pure."""

from dataclasses import dataclass
from typing import Final

from stream_core.api_keys import UNLIMITED, Limits

USER_MARK: Final = "user:"
"""Of a principal's id that has a token and no key; what follows is the user's id."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What somebody may use; None: everything, and of the class: the policy's default."""

    tiers: frozenset[str] | None = None
    models: frozenset[str] | None = None
    clusters: frozenset[str] | None = None
    privacy: str | None = None


@dataclass(frozen=True, slots=True)
class User:
    """A person or a service."""

    id: str
    name: str
    email: str = ""
    issuer: str = ""
    """Who vouches for them: an OIDC issuer, or the name of the introspection; empty: nobody, they have keys alone."""
    subject: str = ""
    """Their name there, that never changes."""
    disabled: bool = False
    admin: bool = False
    rights: Rights = Rights()
    limits: Limits = UNLIMITED
    groups: frozenset[str] = frozenset()
    """Ids of the groups that an admin put them in."""
    told_groups: frozenset[str] = frozenset()
    """Names of the groups that their last token told."""
    told_tiers: frozenset[str] | None = None
    """Which tiers their last token allowed; None: it did not say."""
    created: int = 0
    """Unix seconds, as all times here."""


@dataclass(frozen=True, slots=True)
class Group:
    """Users who may use the same; a group that lists nothing takes nothing away."""

    id: str
    name: str
    """Also that of a group in tokens, whose bearers then belong to it."""
    rights: Rights = Rights()
    created: int = 0


@dataclass(frozen=True, slots=True)
class Project:
    """What people work on together, and who pays for it."""

    id: str
    name: str
    disabled: bool = False
    keeps_content: bool = False
    """Whether its contents go into the audit log."""
    rights: Rights = Rights()
    limits: Limits = UNLIMITED
    members: frozenset[str] = frozenset()
    """Ids of users."""
    created: int = 0


@dataclass(frozen=True, slots=True)
class Key:
    """An API key, without the key itself."""

    id: str
    name: str
    prefix: str
    """Its first characters, so that an owner recognises it."""
    sha256: str
    """Of the whole key, hex."""
    user: str = ""
    project: str = ""
    admin: bool = False
    whole: bool = False
    """Whether its conversations may never be condensed."""
    rights: Rights = Rights()
    limits: Limits = UNLIMITED
    created: int = 0
    expires: int | None = None
    revoked: int | None = None
    origin: str = ""
    """Id of the first of a line of keys of which each was exchanged for the next; empty: it is that itself."""
    replaced_by: str = ""
    """Id of the key that it was exchanged for."""
    valid_until: int | None = None
    """Until when it goes on beside the key that replaces it."""

    @property
    def owner(self) -> str:
        """Whose files and limits it has: those stay when a key is exchanged for another one."""
        return self.origin or self.id


Record = User | Group | Project | Key
