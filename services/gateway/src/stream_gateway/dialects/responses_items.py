"""Items of OpenAI's Responses API, as the chat messages that they are. Pure.

    item                                   | chat
    ---------------------------------------+---------------------------------------------------------------
    message (or role and content alone)    | a message; input_text, input_image, input_audio, output_text are its parts
    function_call                          | a tool call of the assistant's message before it, or of one of its own
    function_call_output                   | a message of role tool; its images follow in a user message
    reasoning                              | reasoning_content of the assistant's next message

Everything else runs at OpenAI, or is kept there: 400 with its place.
"""

from typing import Any, Final

from stream_core.errors import InvalidRequest, Unsupported

_ROLES: Final = ("user", "assistant", "system", "developer")
_TEXTS: Final = ("input_text", "output_text", "text")


def messages_of(items: list[dict[str, Any]], where: str = "input") -> list[dict[str, Any]]:
    """Turn items into messages.

    Args:
        items: each an object.
        where: their place, for errors.

    Raises:
        InvalidRequest: an item that is not as it must be.
        Unsupported: an item that has no place in a chat.
    """
    messages: list[dict[str, Any]] = []
    thought = ""
    for index, item in enumerate(items):
        place = f"{where}[{index}]"
        match item.get("type", "message"):
            case "message":
                message = _message(item, place)
                if message["role"] == "assistant":
                    thought = _give_thought(message, thought)
                messages.append(message)
            case "function_call":
                if not _may_call(messages, thought):
                    messages.append({"role": "assistant", "content": None})
                    thought = _give_thought(messages[-1], thought)
                messages[-1].setdefault("tool_calls", []).append(_call(item, place))
            case "function_call_output":
                messages += _output(item, place)
            case "reasoning":
                thought += _thought(item, place)
            case kind:
                raise Unsupported(f"{place}: an item of type {str(kind)[:60]!r} is not possible here", param=place)
    return messages


def _may_call(messages: list[dict[str, Any]], thought: str) -> bool:
    """Whether a call belongs to the last message: the assistant's, with no new thought in between."""
    return bool(messages) and messages[-1]["role"] == "assistant" and not thought


def _give_thought(message: dict[str, Any], thought: str) -> str:
    if thought:
        message["reasoning_content"] = thought
    return ""


def _message(item: dict[str, Any], where: str) -> dict[str, Any]:
    role, content = item.get("role"), item.get("content")
    if role not in _ROLES:
        raise InvalidRequest(f"{where}.role: one of {', '.join(_ROLES)} is expected", param=f"{where}.role")
    if isinstance(content, str):
        return {"role": role, "content": content}
    return {"role": role, "content": _joined(_parts(content, f"{where}.content"))}


def _call(item: dict[str, Any], where: str) -> dict[str, Any]:
    function = {name: _text(item.get(name), f"{where}.{name}") for name in ("name", "arguments")}
    return {"id": _text(item.get("call_id"), f"{where}.call_id"), "type": "function", "function": function}


def _output(item: dict[str, Any], where: str) -> list[dict[str, Any]]:
    output = item.get("output")
    parts = [{"type": "text", "text": output}] if isinstance(output, str) else _parts(output, f"{where}.output")
    texts = [part["text"] for part in parts if part["type"] == "text"]
    others = [part for part in parts if part["type"] != "text"]
    text = "\n\n".join([*texts, *(["[its images follow]"] if others else [])])
    message = {"role": "tool", "tool_call_id": _text(item.get("call_id"), f"{where}.call_id"), "content": text}
    return [message, {"role": "user", "content": others}] if others else [message]


def _thought(item: dict[str, Any], where: str) -> str:
    name = "content" if item.get("content") else "summary"
    said, place = item.get(name) or [], f"{where}.{name}"
    if not isinstance(said, list) or not all(isinstance(part, dict) for part in said):
        raise InvalidRequest(f"{place}: a list of parts is expected", param=place)
    return "".join(_text(part.get("text"), f"{place}[{index}].text") for index, part in enumerate(said))


def _parts(content: object, where: str) -> list[dict[str, Any]]:
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise InvalidRequest(f"{where}: a string or a list of parts is expected", param=where)
    return [_part(part, f"{where}[{index}]") for index, part in enumerate(content)]


def _part(part: dict[str, Any], where: str) -> dict[str, Any]:
    kind = part.get("type")
    if kind in _TEXTS:
        return {"type": "text", "text": _text(part.get("text"), f"{where}.text")}
    if kind == "refusal":
        return {"type": "text", "text": _text(part.get("refusal"), f"{where}.refusal")}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        image: dict[str, Any] = {"url": part["image_url"]}
        if isinstance(part.get("detail"), str):
            image["detail"] = part["detail"]
        return {"type": "image_url", "image_url": image}
    if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    raise Unsupported(f"{where}: a part of type {str(kind)[:60]!r} like this is not possible here", param=where)


def _joined(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Give texts alone as one string: every model's template knows it."""
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"{where} is missing, or no string", param=where)
    return value
