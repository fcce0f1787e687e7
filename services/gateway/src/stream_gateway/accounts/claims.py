"""What a token's claims say, whoever has vouched for them: whether they let their bearer in, and who that is. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stream_core.errors import NotAllowed, Unauthenticated
from stream_gateway.accounts.providers import ClaimNames, Demands
from stream_gateway.accounts.records import User

_LONGEST_NAME: Final = 200
_LONGEST_SUBJECT: Final = 500
_MOST_GROUPS: Final = 1_000
_NAMES: Final = ("preferred_username", "username", "email", "sub")
Claims = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """What a token tells of its bearer."""

    user: User
    project: str = ""
    """Id or name; empty: it names none."""


def check_times(claims: Claims, now: float, leeway_s: float, *, needs_end: bool) -> None:
    """Check that a token is valid now.

    Args:
        claims: of the token.
        now: unix seconds.
        leeway_s: by how much clocks may differ.
        needs_end: whether one without `exp` is refused.

    Raises:
        Unauthenticated: expired, of the future, or without a time that it needs.
    """
    end, begin, made = (_time(claims, name) for name in ("exp", "nbf", "iat"))
    if end is None and needs_end:
        raise Unauthenticated("this token has no end: exp is missing")
    if end is not None and end + leeway_s <= now:
        raise Unauthenticated("this token has expired")
    if begin is not None and begin - leeway_s > now:
        raise Unauthenticated("this token is not valid yet: nbf is in the future")
    if made is not None and made - leeway_s > now:
        raise Unauthenticated("this token is from the future: iat")


def check_demands(claims: Claims, demands: Demands) -> None:
    """Check that a token is meant for this service, and allows what it must.

    Raises:
        Unauthenticated: it is meant for somebody else.
        NotAllowed: a scope or a group is missing.
    """
    audience = claims.get("aud")
    named = {audience} if isinstance(audience, str) else set(_strings(audience))
    if named.isdisjoint(demands.audience):
        raise Unauthenticated("this token is for another audience (aud)")
    missing = set(demands.required_scope) - set(_listed(claims, demands.claims.scope))
    if missing:
        raise NotAllowed(f"this token lacks the scope {' '.join(sorted(missing))}")
    if demands.required_groups and set(demands.required_groups).isdisjoint(_listed(claims, demands.claims.groups)):
        raise NotAllowed("the bearer of this token is in none of the groups that may use this service")


def told(claims: Claims, issuer: str, names: ClaimNames, now: float) -> Told:
    """Read who the bearer is.

    Args:
        claims: checked already.
        issuer: who vouches.
        names: of the claims.
        now: unix seconds, for a user who is new.

    Raises:
        Unauthenticated: it names nobody.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or len(subject) > _LONGEST_SUBJECT or not subject.isprintable():
        raise Unauthenticated(f"this token names nobody: sub must be a text of 1 to {_LONGEST_SUBJECT} characters")
    name = next((found for each in (names.name, *_NAMES) if (found := _text(claims, each))), subject)
    user = User(
        id=user_id(issuer, subject),
        name=name[:_LONGEST_NAME],
        email=_text(claims, names.email),
        issuer=issuer,
        subject=subject,
        told_groups=frozenset(_listed(claims, names.groups)[:_MOST_GROUPS]),
        told_tiers=frozenset(_listed(claims, names.tiers)) if names.tiers else None,
        created=int(now),
    )
    return Told(user, _text(claims, names.project))


def user_id(issuer: str, subject: str) -> str:
    """Name a user of an issuer: every replica comes to the same id, without asking anybody."""
    digest = hashlib.sha256(issuer.encode() + b"\0" + subject.encode()).hexdigest()
    return f"user-{digest[:24]}"


def _time(claims: Claims, name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124  (NaN)
        raise Unauthenticated(f"this token's {name} is no time")
    return value


def _found(claims: Claims, path: str) -> Any:
    """Find a claim by its name, or by a path of names."""
    if not path:
        return None
    if path in claims:
        return claims[path]
    found: Any = claims
    for step in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(step)
    return found


def _text(claims: Claims, path: str) -> str:
    found = _found(claims, path)
    return _printable(found)[:_LONGEST_NAME] if isinstance(found, str) else ""


def _listed(claims: Claims, path: str) -> list[str]:
    """Read a claim that lists names, as a list or separated by spaces."""
    found = _found(claims, path)
    return found.split() if isinstance(found, str) else _strings(found)


def _strings(value: object) -> list[str]:
    found: Sequence[object] = value if isinstance(value, list) else ()
    return [each for each in found if isinstance(each, str) and len(each) <= _LONGEST_NAME and each.isprintable()]


def _printable(text: str) -> str:
    return "".join(each for each in text if each.isprintable())
