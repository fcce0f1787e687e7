"""The blocks of Anthropic's messages, as chat messages and their parts. Pure."""

from typing import Any, Final

import msgspec
import orjson

from stream_core.errors import InvalidRequest, Unsupported

_LEFT_OUT: Final = "redacted_thinking"


class Block(msgspec.Struct):
    """One block; which fields go with which type is checked where it is used."""

    type: str
    text: str | None = None
    source: dict[str, Any] | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: Any = None
    is_error: bool | None = None
    thinking: str | None = None


def system_text(system: str | list[Block] | None) -> str:
    """Give the system prompt as one text."""
    if system is None or isinstance(system, str):
        return system or ""
    for index, block in enumerate(system):
        if block.type != "text":
            raise _no_place(block, f"system[{index}]")
    return "\n\n".join(block.text or "" for block in system)


def messages_of(role: str, content: str | list[Block], where: str) -> list[dict[str, Any]]:
    """Turn one message into one or more.

    Args:
        role: "user", "assistant" or "system".
        content: of it.
        where: its place, for errors.

    Raises:
        InvalidRequest: a block that is not as it must be.
        Unsupported: a block that has no place in a chat.
    """
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if role == "assistant":
        return [_assistant(content, where)]
    return _user(role, content, where)


def _assistant(blocks: list[Block], where: str) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        place = f"{where}.content[{index}]"
        match block.type:
            case "text":
                texts.append(_need(block.text, f"{place}.text"))
            case "thinking":
                thoughts.append(block.thinking or "")
            case "tool_use":
                function = {
                    "name": _need(block.name, f"{place}.name"),
                    "arguments": orjson.dumps(block.input or {}).decode(),
                }
                calls.append({"id": _need(block.id, f"{place}.id"), "type": "function", "function": function})
            case _ if block.type == _LEFT_OUT:
                continue
            case _:
                raise _no_place(block, place)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or (None if calls else "")}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _user(role: str, blocks: list[Block], where: str) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        place = f"{where}.content[{index}]"
        if block.type == "tool_result":
            text, images = _result(block, place)
            id_ = _need(block.tool_use_id, f"{place}.tool_use_id")
            results.append({"role": "tool", "tool_call_id": id_, "content": text})
            parts += images
        else:
            parts.append(_part(block, place))
    if not parts:
        return results or [{"role": role, "content": ""}]
    if all(part["type"] == "text" for part in parts):
        return [*results, {"role": role, "content": "\n\n".join(part["text"] for part in parts)}]
    return [*results, {"role": role, "content": parts}]


def _result(block: Block, where: str) -> tuple[str, list[dict[str, Any]]]:
    """Give a tool's result: its text, and its images, which a message of role tool can't carry."""
    inner = block.content
    if inner is None or isinstance(inner, str):
        text, images = inner or "", []
    else:
        try:
            blocks = msgspec.convert(inner, list[Block])
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"{where}.content: {error}", param=f"{where}.content") from error
        made = [_part(each, f"{where}.content[{index}]") for index, each in enumerate(blocks)]
        images = [part for part in made if part["type"] != "text"]
        text = "\n\n".join(part["text"] for part in made if part["type"] == "text")
        if images:
            text = f"{text}\n\n[its images follow]".strip()
    return (f"Error: {text}" if block.is_error else text), images


def _part(block: Block, where: str) -> dict[str, Any]:
    if block.type == "text":
        return {"type": "text", "text": _need(block.text, f"{where}.text")}
    source = block.source or {}
    match block.type, source.get("type"):
        case "image", "base64":
            kind = _need(source.get("media_type"), f"{where}.source.media_type")
            data = _need(source.get("data"), f"{where}.source.data")
            return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
        case "image", "url":
            return {"type": "image_url", "image_url": {"url": _need(source.get("url"), f"{where}.source.url")}}
        case "document", "text":
            return {"type": "text", "text": _need(source.get("data"), f"{where}.source.data")}
        case _:
            raise _no_place(block, where)


def _need(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"{where} is missing, or no string", param=where)
    return value


def _no_place(block: Block, where: str) -> Unsupported:
    source = f" from {str(block.source.get('type'))[:40]!r}" if block.source else ""
    return Unsupported(f"{where}: a block of type {block.type[:60]!r}{source} is not possible here", param=where)
