"""Whoever a request comes from, whatever it was authenticated with: what it may use, and whose limits it spends."""

from dataclasses import dataclass
from typing import Literal

from stream_core.api_keys import UNLIMITED, Limits

SubjectKind = Literal["key", "user", "project"]


@dataclass(frozen=True, slots=True)
class Subject:
    """A key, a user or a project that a request counts for."""

    kind: SubjectKind
    id: str
    limits: Limits = UNLIMITED


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever holds a valid key or token."""

    id: str
    """The key's id, or "user:" and the user's for a token; never the key or token itself. Files, batches, responses
    and cached summaries belong to it."""
    tiers: frozenset[str] | None
    """What it may use; None: every tier."""
    privacy: str | None
    """Class of all its requests; None: the policy's default."""
    clusters: frozenset[str] | None = None
    """Which clusters it may use; None: every one of its tiers."""
    whole: bool = False
    """Whether its conversations may never be condensed."""
    models: frozenset[str] | None = None
    """Which models it may use; None: every one of its tiers."""
    user: str = ""
    """Id of the user; empty for a key of nobody."""
    project: str = ""
    """Id of the project that it works for; empty: none."""
    groups: frozenset[str] = frozenset()
    subjects: tuple[Subject, ...] = ()
    """Whom its requests count for, each with its own limits."""
    admin: bool = False
    """Whether it may use the admin API."""
    keeps_content: bool = False
    """Whether the project opted in to having contents in the audit log."""
