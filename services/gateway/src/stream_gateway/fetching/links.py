"""Addresses of images, sounds and films in a request, which engines would fetch by themselves. Pure.

An engine stands where it may reach what no client may: its own machine, the cluster's nodes, a cloud's metadata. So a
request that leaves here holds no address to fetch: the file itself stands there as a data: URL, or the request ends.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from stream_core.errors import InvalidRequest

_FIELDS: Final = ("input", "prompt", "documents")
"""Fields of a request, beside the contents of messages, in which engines look for addresses."""
_SHOWN: Final = 80


class UrlNotAllowed(InvalidRequest):
    """An address that is not fetched here."""

    code = "url_not_allowed"


@dataclass(frozen=True, slots=True)
class Link:
    """An address in a request."""

    place: str
    """For errors: "messages[0].content[1].image_url.url"."""
    steps: tuple[str | int, ...]
    """The way to it in the body."""
    url: str

    @property
    def is_data(self) -> bool:
        """Whether it is a data: URL, which holds the file itself."""
        return self.url[:5].lower() == "data:"

    @property
    def is_image(self) -> bool:
        """Whether it stands where an image is expected."""
        return "image_url" in self.steps

    @property
    def shown(self) -> str:
        """Its beginning, without a query, which may hold secrets."""
        return self.url.partition("?")[0][:_SHOWN]


def links_of(body: Mapping[str, Any]) -> Iterator[Link]:
    """Yield what stands in a body where an engine expects an address, data: URLs included."""
    messages = body.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict) and isinstance(message.get("content"), list | dict):
            yield from _within(message["content"], ("messages", index, "content"))
    for field in _FIELDS:
        if isinstance(body.get(field), list | dict):
            yield from _within(body[field], (field,))


def with_files(body: Mapping[str, Any], files: Mapping[tuple[str | int, ...], str]) -> dict[str, Any]:
    """Copy a body with data: URLs in the places of links.

    Args:
        body: stays as it is.
        files: data: URLs by their links' steps.
    """
    copied = {**body}
    for steps, data in files.items():
        at: Any = copied
        for step in steps[:-1]:
            # Each step is copied once for each link: a few small objects, never the files.
            at[step] = dict(at[step]) if isinstance(at[step], dict) else list(at[step])
            at = at[step]
        at[steps[-1]] = data
    return copied


def _within(value: object, steps: tuple[str | int, ...]) -> Iterator[Link]:
    pending: list[tuple[object, tuple[str | int, ...]]] = [(value, steps)]
    while pending:
        value, steps = pending.pop()
        if isinstance(value, list):
            pending += [(inner, (*steps, index)) for index, inner in reversed(list(enumerate(value)))]
        elif isinstance(value, dict):
            for name, inner in value.items():
                if not isinstance(inner, str):
                    pending.append((inner, (*steps, name)))
                elif name == "url" or name.endswith("_url"):
                    yield Link(_words((*steps, name)), (*steps, name), inner)


def _words(steps: tuple[str | int, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step[:_SHOWN]}" for step in steps)[1:]
