"""Access tokens that are JWTs: who is let in, who is not and why, while the provider's keys change or it is away."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator

import pytest
from gateway_accounts.provider import AUDIENCE, Provider
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import RSAKey

from stream_core.errors import NotAllowed, StreamError, Unauthenticated, UpstreamUnavailable
from stream_gateway.accounts.answers import client
from stream_gateway.accounts.claims import user_id
from stream_gateway.accounts.oidc import JwtVerifier
from stream_gateway.accounts.providers import ClaimNames, OidcIssuer
from stream_gateway.accounts.signing_keys import SigningKeys


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """A running provider."""
    async with Provider().running() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    """Of the key fetches."""
    return Clock()


@pytest.fixture
async def verifier(provider, clock) -> AsyncIterator[JwtVerifier]:
    """What checks its tokens."""
    async with client(None) as session:
        yield checking(provider, session, clock)


def checking(provider, session, clock, **fields) -> JwtVerifier:
    given = {"audience": [AUDIENCE], "required_scope": ["stream"], **fields}
    issuer = OidcIssuer(issuer=provider.url, algorithms=["RS256", "ES256"], refetch_pause_s=5, **given)
    return JwtVerifier([(issuer, SigningKeys(issuer, session, clock))])


async def test_a_good_token_names_its_user(provider, verifier) -> None:
    """RS256 and ES256 both; the user's id is the same at every replica, and comes from issuer and subject alone."""
    provider.rotate("second", kind="ES256", keep=True)
    for kid in ("first", "second"):
        user = (await verifier.verify(provider.token(kid))).user
        assert (user.name, user.email, user.issuer, user.subject) == ("Ann", "ann@example.org", provider.url, "ann")
        assert user.id == user_id(provider.url, "ann")
        assert user.told_groups == {"physics"}
        assert user.told_tiers is None
        assert not user.admin
    assert provider.count("/jwks") == 1
    assert (await verifier.verify(provider.token("second", aud=["other", AUDIENCE]))).user.name == "Ann"


async def test_claims_have_other_names(provider, clock) -> None:
    """Names, nested ones too, are settings: groups, tiers and project come from where the institution has them."""
    names = ClaimNames(name="nick", groups="realm_access.roles", project="work", tiers="tiers", scope="scp")
    async with client(None) as session:
        verifier = checking(provider, session, clock, claims=names)
        told = await verifier.verify(
            provider.token(
                nick="annie", realm_access={"roles": ["a", "b"]}, work="dark", tiers="local hpc", scp=["stream"]
            )
        )
        assert (told.user.name, told.project) == ("annie", "dark")
        assert told.user.told_groups == {"a", "b"}
        assert told.user.told_tiers == {"local", "hpc"}
        told = await verifier.verify(provider.token(name=None, scp="stream"))
        assert (told.user.name, told.user.told_tiers) == ("ann@example.org", frozenset())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"exp": int(time.time()) - 31}, "expired"),
        ({"exp": None}, "no end"),
        ({"exp": "soon"}, "exp is no time"),
        ({"nbf": int(time.time()) + 600}, "not valid yet"),
        ({"iat": int(time.time()) + 600}, "from the future"),
        ({"aud": "somebody else"}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"iss": "https://elsewhere.example.org"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"sub": None}, "names nobody"),
        ({"sub": "a\u0000b"}, "names nobody"),
        ({"at_hash": "x"}, "ID token"),
        ({"typ": "ID"}, "ID token"),
    ],
)
async def test_a_wrong_claim_is_refused(provider, verifier, changes, words) -> None:
    """Each of them, with the reason; the token is not repeated."""
    token = provider.token(**changes)
    with pytest.raises(Unauthenticated, match=words) as caught:
        await verifier.verify(token)
    assert token[:30] not in caught.value.message


async def test_scopes_and_groups_are_demanded(provider, clock) -> None:
    """A valid token without the scope, or of nobody in the groups, is forbidden rather than wrong."""
    async with client(None) as session:
        verifier = checking(provider, session, clock, required_groups=["staff", "physics"])
        await verifier.verify(provider.token())
        with pytest.raises(NotAllowed, match="scope stream"):
            await verifier.verify(provider.token(scope="openid streams"))
        with pytest.raises(NotAllowed, match="none of the groups"):
            await verifier.verify(provider.token(groups=["physicists"]))


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(provider: Provider, kind: str) -> str:
    """Tokens with the tricks of the trade."""
    claims = provider.claims()
    head, body, signature = provider.token().split(".")
    public = provider.signing["first"].as_pem(private=False)

    def written(header: dict) -> str:
        return encoded(json.dumps(header).encode())

    match kind:
        case "none":
            return f"{written({'alg': 'none', 'kid': 'first'})}.{body}.{signature}"
        case "NoNe":
            return f"{written({'alg': 'NoNe', 'kid': 'first'})}.{body}.{signature}"
        case "public key as secret":
            signed = f"{written({'alg': 'HS256', 'kid': 'first'})}.{body}"
            return f"{signed}.{encoded(hmac.digest(public, signed.encode(), 'sha256'))}"
        case "another key":
            return jwt.encode({"alg": "RS256", "kid": "first"}, claims, RSAKey.generate_key(2048))
        case "key in the header":
            own = RSAKey.generate_key(2048)
            header = {"alg": "RS256", "kid": "first", "jwk": own.as_dict(private=False)}
            return jwt.encode(header, claims, own)
        case "another body":
            return f"{head}.{written(provider.claims(sub='root'))}.{signature}"
        case "PS256 for RS256":
            key = RSAKey.import_key(provider.signing["first"].as_pem(private=True))
            return jwt.encode({"alg": "PS256", "kid": "first"}, claims, key, algorithms=["PS256"])
        case "unknown critical field":
            header = {"alg": "RS256", "kid": "first", "crit": ["x"], "x": 1}
            return f"{written(header)}.{body}.{signature}"
        case "kid is a list":
            return f"{written({'alg': 'RS256', 'kid': ['first']})}.{body}.{signature}"
        case _:
            return f"{head}.{body}."


@pytest.mark.parametrize(
    "kind",
    [
        "none",
        "NoNe",
        "public key as secret",
        "another key",
        "key in the header",
        "another body",
        "PS256 for RS256",
        "unknown critical field",
        "kid is a list",
        "no signature",
    ],
)
async def test_forged_tokens_are_refused(provider, verifier, kind) -> None:
    """No algorithm, another algorithm, another key, another text: none of them lets anybody in."""
    with pytest.raises(Unauthenticated):
        await verifier.verify(forged(provider, kind))


async def test_keys_rotate(provider, verifier, clock) -> None:
    """A new key is found by the first token that names it; the old one counts as long as the issuer has it."""
    old = provider.token()
    await verifier.verify(old)
    provider.rotate("second", keep=True)
    clock.now += 6
    await verifier.verify(provider.token("second"))
    await verifier.verify(old)
    provider.rotate("third")
    clock.now += 6
    await verifier.verify(provider.token("third"))
    with pytest.raises(Unauthenticated, match="does not have"):
        await verifier.verify(old)


async def test_strangers_do_not_make_it_ask(provider, verifier, clock) -> None:
    """A hundred tokens with made-up keys at once make it look once, and later ones once in a while."""
    await verifier.verify(provider.token())
    clock.now += 6
    tokens = [provider.token(header={"kid": f"k{number}"}) for number in range(100)]
    results = await asyncio.gather(*map(verifier.verify, tokens), return_exceptions=True)
    assert all(isinstance(result, Unauthenticated) for result in results)
    assert provider.count("/jwks") == 2


async def test_the_provider_is_away(provider, verifier, clock) -> None:
    """What is signed with a known key goes on; for an unknown key it is 503, not 401, and is asked for again later."""
    await verifier.verify(provider.token())
    provider.rotate("second", keep=True)
    provider.away = True
    clock.now += 6
    await verifier.verify(provider.token())
    for _ in range(2):
        with pytest.raises(UpstreamUnavailable, match="status 503"):
            await verifier.verify(provider.token("second"))
    provider.away = False
    clock.now += 6
    await verifier.verify(provider.token("second"))


async def test_keys_that_no_signature_is_checked_with(provider, verifier) -> None:
    """Keys for encryption, shared secrets, short ones and broken ones are passed over."""
    good = provider.published[0]
    small = {**good, "kid": "small", "n": encoded(b"\xff" * 128)}
    provider.published = [{**good, "kid": "enc", "use": "enc"}, {"kty": "oct", "k": "AAAA", "kid": "o"}]
    provider.published += [small, {"kty": "RSA"}, "x", good]
    await verifier.verify(provider.token())
    for kid in ("enc", "o", "small"):
        with pytest.raises(Unauthenticated):
            await verifier.verify(provider.token(header={"kid": kid}))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
async def test_changed_tokens_let_nobody_in(provider, verifier, noise) -> None:
    """Whatever bytes are changed, it is refused with one of our errors, or nothing that counts was changed."""
    token = provider.token()
    changed = bytearray(token.encode())
    for place, value in noise:
        changed[place % len(changed)] = value
    text = changed.decode("latin-1")
    if text == token:
        return
    try:
        told = await verifier.verify(text)
    except StreamError:
        return
    assert told == await verifier.verify(token)  # the last character of base64 has bits that say nothing
