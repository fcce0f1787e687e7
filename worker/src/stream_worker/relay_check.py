"""The preflight's network half: each relay is reached as a worker reaches it, through the same proxy, and left."""

import asyncio
import datetime
import email.utils
import ssl
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from picows import WSError, WSListener, WSTransport, ws_connect

from stream_core.errors import ConfigError
from stream_worker.dialing import check_relay_url, proxy_for, shown
from stream_worker.findings import Finding

PATH: Final = "/v1/worker"
_LIMIT_S: Final = 10.0
_SOON: Final = datetime.timedelta(days=14)
_CLOCK_NOTE_S: Final = 5.0
_CLOCK_MOST_S: Final = 240.0
"""A gateway refuses a worker whose clock is 300 s away; the answer's own second and its way are in the difference."""


@dataclass(frozen=True)
class Answer:
    """What a relay's answer to the upgrade told."""

    took_s: float
    expires: datetime.datetime | None
    """Of its certificate; None over ws://."""
    tls: str
    ahead_s: float | None
    """By how much our clock is ahead of its; None: it did not say."""


async def check_relays(urls: Sequence[str], ca_file: str) -> list[Finding]:
    """Reach every relay; then say how this clock stands to theirs."""
    if not urls:
        return [
            Finding("note", "relays", "not checked", "name them: --relay wss://HOST, as in hpc_dispatch's `relays`")
        ]
    try:
        trust = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        return [Finding("FIX", "relays", f"{ca_file}: {error.strerror or error}", "--ca-file needs a PEM bundle")]
    answers: list[Answer] = []
    findings = []
    for url in urls:
        found = await _check(url, trust)
        if isinstance(found, Answer):
            answers.append(found)
            findings.append(_reached(url, found))
        else:
            findings.append(found)
    return [*findings, *_clock(answers)]


def _way(url: str) -> tuple[str | None, str]:
    """(proxy with its credentials, relay and proxy as they may be shown)."""
    proxy = proxy_for(url, urllib.request.getproxies(), lambda host: bool(urllib.request.proxy_bypass(host)))
    return proxy, f"{shown(url)} through proxy {shown(proxy)}" if proxy else shown(url)


async def _check(url: str, trust: ssl.SSLContext) -> Answer | Finding:
    try:
        proxy, way = _way(check_relay_url(url))
    except ConfigError as error:
        return Finding("FIX", "relay", error.message, "give it as hpc_dispatch has it, and HTTPS_PROXY as a URL")
    what = f"relay {way}"
    began = time.monotonic()
    try:
        async with asyncio.timeout(_LIMIT_S):
            transport, _ = await ws_connect(
                WSListener,
                url.rstrip("/") + PATH,
                ssl_context=trust if url.startswith("wss:") else None,
                max_redirects=0,
                proxy=proxy,
                proxy_ssl_context=trust if (proxy or "").startswith("https:") else None,
            )
    except TimeoutError:
        fix = "let this node open connections to it, or set HTTPS_PROXY to the site's proxy"
        return Finding("FIX", what, f"no answer within {_LIMIT_S:g} s", fix)
    except ssl.SSLCertVerificationError as error:
        fix = "--ca-file with the authority that signed it (hpc_dispatch: relay_ca_file), or renew the certificate"
        return Finding("FIX", what, f"its certificate is refused: {error.verify_message}", fix)
    except Exception as error:  # noqa: BLE001  (proxies have errors of their own; whatever it was is what was found)
        return Finding("FIX", what, f"{type(error).__name__}: {error}", _hint(error, proxied=proxy is not None))
    try:
        return _read(transport, time.monotonic() - began)
    finally:
        transport.disconnect(graceful=False)


def _hint(error: Exception, *, proxied: bool) -> str:
    if isinstance(error, WSError):
        return "something else answers there, or a proxy on the way lets no WebSocket through: ask for upgrades"
    if proxied:
        return "the proxy refuses or can't reach it: ask for CONNECT to this host and port, check user and password"
    return "check its name and port; where nodes have no way out, set HTTPS_PROXY to the site's proxy"


def _read(transport: WSTransport, took_s: float) -> Answer:
    tls: Any = transport.underlying_transport.get_extra_info("ssl_object")
    expires = None
    if tls is not None:
        seconds = ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"])
        expires = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    told = transport.response.headers.get("Date") if transport.response is not None else None
    ahead = time.time() - email.utils.parsedate_to_datetime(told).timestamp() if told else None
    return Answer(took_s, expires, tls.version() if tls is not None else "no TLS, loopback", ahead)


def _reached(url: str, answer: Answer) -> Finding:
    what = f"relay {_way(url)[1]}"
    told = f"WebSocket in {answer.took_s * 1000:.0f} ms, {answer.tls}"
    if answer.expires is None:
        return Finding("ok", what, told)
    told += f", certificate until {answer.expires:%Y-%m-%d}"
    if answer.expires - datetime.datetime.now(datetime.UTC) < _SOON:
        return Finding("note", what, told, "it ends within two weeks: tell who runs the relay")
    return Finding("ok", what, told)


def _clock(answers: Sequence[Answer]) -> list[Finding]:
    told = [answer.ahead_s for answer in answers if answer.ahead_s is not None]
    if not told:
        return [
            Finding("note", "clock", "no relay told the time", "compare it by hand: at most 300 s from the gateway's")
        ]
    ahead = min(told, key=abs)
    words = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the relay's"
    fix = "let chrony or ntpd set it"
    if abs(ahead) > _CLOCK_MOST_S:
        return [Finding("FIX", "clock", words, fix)]
    return [Finding("note", "clock", words, fix) if abs(ahead) > _CLOCK_NOTE_S else Finding("ok", "clock", words)]
