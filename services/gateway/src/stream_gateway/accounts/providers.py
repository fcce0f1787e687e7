"""Settings of those who vouch for users (OIDC issuers, an authority that is asked about each token), and URLs."""

from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_Seconds = Annotated[float, Field(gt=0)]
_Names = Annotated[list[str], Field(min_length=1)]
_LONGEST_ISSUER: Final = 500
_Issuer = Annotated[str, Field(min_length=1, max_length=_LONGEST_ISSUER)]
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
"""Of signatures. There is no "none", and none with a shared secret, which whoever checks tokens could forge with."""


def secure_url(url: str) -> str:
    """Take a URL that nobody on the way can read or change: https, or http on this machine.

    Raises:
        ValueError: another one.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return url
    if parts.scheme == "http" and parts.hostname in _LOCAL:
        return url
    raise ValueError("an https:// URL is needed (http:// on this machine alone)")


def store_url(url: str) -> str:
    """Take the URL of a database that accounts can lie in; empty is none.

    Raises:
        ValueError: another one; the message does not repeat it.
    """
    parts = urlsplit(url)
    if not url:
        return url
    if parts.scheme not in {"sqlite", "postgresql"}:
        raise ValueError("a URL of sqlite:// or postgresql:// is needed")
    if parts.password is not None:
        raise ValueError("no password belongs into a URL: put it into store_password_file")
    if parts.query:
        raise ValueError("parameters are not possible: TLS is always on")
    if parts.scheme == "sqlite" and len(parts.path) < len("/x"):
        raise ValueError("sqlite:/// needs the path of a file")
    if parts.scheme == "postgresql" and not (parts.hostname and parts.path.strip("/")):
        raise ValueError("postgresql:// needs a host and a database")
    return url


SecureUrl = Annotated[str, AfterValidator(secure_url)]
StoreUrl = Annotated[str, AfterValidator(store_url)]


class ClaimNames(BaseModel):
    """Which claims of a token say what; "realm_access.roles" is a claim within a claim. Empty: none does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "name"
    """The user's, for people; else preferred_username, username, email or the subject."""
    email: str = "email"
    groups: str = "groups"
    project: str = ""
    """The project that the bearer works for, by id or name."""
    tiers: str = ""
    """The tiers that the bearer may use, as a list or separated by spaces; a token without it may use none."""
    scope: str = "scope"


class Demands(BaseModel):
    """What a token needs to let its bearer in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    audience: _Names
    """One of these must be in `aud`: that of this service, and nobody else's."""
    required_scope: list[str] = []
    """All of them."""
    required_groups: list[str] = []
    """One of them."""
    claims: ClaimNames = ClaimNames()
    leeway_s: Annotated[float, Field(ge=0, le=300)] = 30.0
    """By how much the clocks of issuer and gateway may differ."""


class OidcIssuer(Demands):
    """An OIDC provider whose access tokens are JWTs: Keycloak, Entra, CILogon, ..."""

    issuer: Annotated[SecureUrl, Field(max_length=_LONGEST_ISSUER)]
    """Exactly as tokens have it; discovery is at its /.well-known/openid-configuration."""
    algorithms: Annotated[list[Algorithm], Field(min_length=1)] = ["RS256", "ES256"]
    jwks_uri: SecureUrl | None = None
    """Where its keys are; None asks discovery."""
    ca_file: Path | None = None
    """Who vouches for its certificate; None: the system's authorities."""
    refresh_s: _Seconds = 600.0
    """How often its keys are fetched: one that it takes back is refused after that."""
    refetch_pause_s: _Seconds = 5.0
    """Tokens with an unknown key make the gateway look again, but no more often than this."""


class Introspection(Demands):
    """An authority that is asked about opaque tokens (RFC 7662): Globus Auth, Keycloak, ..."""

    issuer: _Issuer
    """What its users are known by, e.g. https://auth.globus.org; an answer with another `iss` is refused."""
    endpoint: SecureUrl
    client_id: str
    client_secret_file: Path
    ca_file: Path | None = None
    parameters: dict[str, str] = {}
    """More fields of each question, e.g. Globus' include: session_info,identity_set_detail."""
    extra: str = ""
    """"module:function" that adds groups or refuses by policy; `stream_gateway.accounts.globus_groups:groups` does it
    with Globus Groups."""
    cache_s: _Seconds = 60.0
    """How long an answer holds, and no longer than the token: one that is taken back is refused after that."""
    refusal_cache_s: _Seconds = 10.0
    """How long a refusal holds."""
    max_cached: Annotated[int, Field(ge=1)] = 10_000
    """Tokens whose answers are remembered."""
    max_questions: Annotated[int, Field(ge=1)] = 16
    """At once; further ones wait."""

    @model_validator(mode="after")
    def _names_a_function(self) -> Self:
        if self.extra and not all(self.extra.partition(":")[::2]):
            raise ValueError('extra: "module:function" is expected')
        return self
