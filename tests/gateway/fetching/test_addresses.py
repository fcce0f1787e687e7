"""Which addresses may be asked, and how they are recognised, however they are written."""

import pytest

from stream_gateway.fetching.addresses import is_listed, is_public, split_url
from stream_gateway.fetching.links import links_of, with_files


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "203.0.113.9", "224.0.0.1"),
        *("240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "2002:a00:1::"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "ff02::1", "2001:db8::1", "2001:0:7f00:1::", "localhost", "", "1"),
    ],
)
def test_what_is_not_public(address: str) -> None:
    """Loopback, private, link-local, metadata, shared, test, multicast, reserved: also inside an IPv6 address."""
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_what_is(address: str) -> None:
    """The internet."""
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "file:///etc/passwd",
            "ftp://h/x",
            "gopher://h/x",
            "//h/x",
            "h/x",
            "",
            "http://",
            "http:///x",
            "javascript:0",
        ),
        *(
            "http://user@h/x",
            "http://user:pass@h/x",
            "http://a@b@h/",
            "http://h\\@evil/",
            "http://h:99999/",
            "http://h:0/",
        ),
        *("http://h/\r\nx: y", "http://h\t/", "http://h /", "http://[::1", "http://h:x/", "http://h\u2024example/"),
    ],
)
def test_what_is_no_plain_address(url: str) -> None:
    """Other schemes, users, broken hosts and ports, control characters, letters that two programs read in two ways."""
    assert split_url(url) is None


@pytest.mark.parametrize(
    ("url", "listed"),
    [
        ("https://images.example.org/a.png", True),
        ("http://IMAGES.example.org./a.png", True),
        ("https://images.example.org:443/a.png", True),
        ("https://images.example.org:8443/a.png", False),
        ("https://a.b.example.net/x", True),
        ("https://example.net/x", False),
        ("https://evilexample.net/x", False),
        ("https://images.example.org.evil.com/x", False),
        ("https://ports.example.org:8443/x", True),
        ("https://ports.example.org/x", False),
        ("https://127.0.0.1/x", False),
    ],
)
def test_the_list_of_hosts(url: str, listed: bool) -> None:
    """A host is on the list by its whole name and port, or below a name with a dot before it."""
    parts = split_url(url)
    assert parts is not None
    assert is_listed(parts, ["images.example.org", ".example.net", "ports.example.org:8443"]) is listed


def test_links_are_found_wherever_engines_look() -> None:
    """In contents of messages and inputs, at any depth and in any of the fields that engines know."""
    http, data = "http://h/x?secret", "data:image/png;base64,AAAA"
    body = {
        "messages": [
            {"role": "user", "content": "http://h/only text"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": http},
                    {"type": "image_url", "image_url": {"url": http}},
                    {"type": "image_url", "image_url": data},
                    {"type": "video_url", "video_url": {"url": http}},
                    {"audio_url": http},
                    {"type": "tool_result", "content": [{"type": "image", "url": "file:///x"}]},
                ],
            },
        ],
        "input": [{"type": "image_url", "image_url": {"url": "DATA:image/png,x"}}, {"image_url": http}],
        "tools": [{"function": {"parameters": {"url": http}}}],
    }
    found = [link for link in links_of(body) if not link.is_data]
    held = [link.place for link in links_of(body) if link.is_data]
    assert held == ["messages[1].content[2].image_url", "input[0].image_url.url"]
    assert {link.place: link.is_image for link in found} == {
        "messages[1].content[1].image_url.url": True,
        "messages[1].content[3].video_url.url": False,
        "messages[1].content[4].audio_url": False,
        "messages[1].content[5].content[0].url": False,
        "input[1].image_url": True,
    }
    assert all("secret" not in link.shown for link in found)


def test_files_take_the_places_of_links() -> None:
    """The request is copied where it changes, and stays as it was."""
    body = {"input": [{"image_url": "http://h/1"}, {"image_url": {"url": "http://h/2"}}], "x": {}}
    files = {link.steps: f"data:{index}" for index, link in enumerate(links_of(body))}
    assert with_files(body, files)["input"] == [{"image_url": "data:0"}, {"image_url": {"url": "data:1"}}]
    assert body["input"] == [{"image_url": "http://h/1"}, {"image_url": {"url": "http://h/2"}}]
