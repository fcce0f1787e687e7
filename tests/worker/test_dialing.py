"""How a relay is reached, as tables and properties: its URL, its proxy, the pauses between attempts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_core.errors import ConfigError
from stream_worker.dialing import check_relay_url, pause_s, proxy_for, shown

RELAY = "wss://relay.example:8443"


@pytest.mark.parametrize(
    "url", ["wss://relay.example", RELAY, "ws://127.0.0.1:80", "ws://localhost:80", "ws://[::1]:80"]
)
def test_relay_urls_that_are_sealed_or_stay_here(url):
    """wss:// goes anywhere, ws:// to this very machine."""
    assert check_relay_url(url) == url


@pytest.mark.parametrize(
    "url", ["ws://relay.example", "ws://10.0.0.1:80", "https://relay.example", "relay.example:443", "wss://", ""]
)
def test_relay_urls_that_would_send_the_ticket_in_the_clear(url):
    """ws:// over a network, or no WebSocket at all, is refused, and the message names the field."""
    with pytest.raises(ConfigError, match="must be wss://") as raised:
        check_relay_url(url)
    assert raised.value.param == "relays"


def test_relay_url_with_credentials():
    """A relay's URL holds no credentials; the refusal does not show them."""
    with pytest.raises(ConfigError, match="no credentials") as raised:
        check_relay_url("wss://someone:hunter2@relay.example")
    assert "hunter2" not in raised.value.message


@pytest.mark.parametrize(
    ("url", "proxies", "bypassed", "expected"),
    [
        (RELAY, {}, "", None),
        (RELAY, {"https": "http://proxy:3128"}, "", "http://proxy:3128"),
        (RELAY, {"https": "proxy:3128"}, "", "http://proxy:3128"),
        (RELAY, {"https": "u:p@proxy:3128"}, "", "http://u:p@proxy:3128"),
        (RELAY, {"http": "http://proxy:3128"}, "", None),
        (RELAY, {"all": "socks5://proxy:1080"}, "", "socks5://proxy:1080"),
        (RELAY, {"https": "http://proxy:3128", "all": "http://other"}, "", "http://proxy:3128"),
        (RELAY, {"https": "http://proxy:3128"}, "relay.example", None),
        (RELAY, {"https": "http://proxy:3128"}, "relay.example:8443", None),
        (RELAY, {"https": "http://proxy:3128"}, "relay.example:443", "http://proxy:3128"),
        ("wss://relay.example", {"https": "http://proxy:3128"}, "relay.example:443", None),
        ("ws://127.0.0.1:80", {"https": "http://proxy:3128"}, "", None),
    ],
)
def test_choice_of_proxy(url, proxies, bypassed, expected):
    """HTTPS_PROXY is for wss://, with or without http:// before it; NO_PROXY names hosts, or hosts with a port."""
    assert proxy_for(url, proxies, lambda host: host == bypassed) == expected


@pytest.mark.parametrize(
    "proxy",
    ["http://", "ftp://u:hunter2@proxy", "http://u:hunter2@", "u:hunter2@proxy:port", "http://u:hünter2@proxy:1"],
)
def test_wrong_proxy_is_told_without_its_password(proxy):
    """A proxy that is no URL is refused by the variable's name; the message shows nothing of its value."""
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as raised:
        proxy_for(RELAY, {"https": proxy}, lambda _: False)
    assert not any(word in raised.value.message for word in ("hunter2", "hünter2", "ftp"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [(RELAY, "relay.example:8443"), ("http://u:p@proxy:3128", "proxy:3128"), ("http://u:p%40@x@proxy:1", "proxy:1")],
)
def test_shown_has_no_credentials(url, expected):
    """What is logged of a URL is where it goes."""
    assert shown(url) == expected


def test_pauses_as_a_table():
    """Each relay has its turn before the pause doubles, up to the most."""
    pauses = [pause_s(failures, 2, (0.05, 0.5), 0.5) for failures in range(1, 12)]
    assert pauses == [0.05, 0.05, 0.1, 0.1, 0.2, 0.2, 0.4, 0.4, 0.5, 0.5, 0.5]


@given(
    st.integers(1, 10**9),
    st.integers(1, 9),
    st.tuples(st.floats(0.001, 1), st.floats(1, 60)),
    st.floats(0, 1, exclude_max=True),
)
def test_pauses_are_bounded_and_jittered(failures, relays, backoff, jitter):
    """However many failures: half to one and a half of a mean that lies between first and most, and never shrinks."""
    pause = pause_s(failures, relays, backoff, jitter)
    assert 0.5 * backoff[0] <= pause <= 1.5 * backoff[1]
    assert pause_s(failures + 1, relays, backoff, jitter) >= pause
    assert pause_s(failures, relays, backoff, 0.0) <= pause
