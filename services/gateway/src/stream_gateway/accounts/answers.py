"""Questions to identity providers over HTTP: short, bounded, and never redirected."""

import base64
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from stream_core.errors import ConfigError, UpstreamUnavailable

_PATIENCE: Final = aiohttp.ClientTimeout(total=5.0)
_LARGEST: Final = 1024 * 1024


def client(ca_file: Path | None) -> aiohttp.ClientSession:
    """Open a client that trusts the system's authorities, or those of a file; call it in a running loop.

    Raises:
        ConfigError: the file is not readable.
    """
    try:
        trust = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"{ca_file}: {error}", param="ca_file") from error
    return aiohttp.ClientSession(
        timeout=_PATIENCE, connector=aiohttp.TCPConnector(ssl=trust), cookie_jar=aiohttp.DummyCookieJar()
    )


def basic(user: str, password: str) -> str:
    """Write the header of HTTP's basic authentication."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode('ascii')}"


async def ask(
    session: aiohttp.ClientSession,
    url: str,
    *,
    form: Mapping[str, str] | None = None,
    authorization: str = "",
) -> Any:
    """Get JSON, or post a form and get JSON.

    Args:
        session: from `client`.
        url: whom to ask.
        form: None gets, instead of posting it.
        authorization: that header, whole; empty: none.

    Raises:
        UpstreamUnavailable: the provider does not answer, or with something else.
    """
    headers = {"accept": "application/json", **({"authorization": authorization} if authorization else {})}
    method = "GET" if form is None else "POST"
    try:
        async with session.request(method, url, data=form, headers=headers, allow_redirects=False) as response:
            body = await response.content.read(_LARGEST + 1)
            while len(body) <= _LARGEST and (more := await response.content.read(_LARGEST + 1 - len(body))):
                body += more
            if response.status != 200:  # noqa: PLR2004  (HTTP's own number)
                raise UpstreamUnavailable(f"the identity provider at {url} answers with status {response.status}")
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        words = str(error) or type(error).__name__
        raise UpstreamUnavailable(f"the identity provider at {url} does not answer: {words}") from error
    if len(body) > _LARGEST:
        raise UpstreamUnavailable(f"the identity provider at {url} answers with more than {_LARGEST:,} bytes")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UpstreamUnavailable(f"the identity provider at {url} answers with no JSON") from error
