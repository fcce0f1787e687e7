"""What a line of a batch ends as: one line of JSON of the output file or the error file, in OpenAI's form. Pure."""

from typing import Any

import orjson

from stream_core.errors import StreamError, UpstreamRejected
from stream_gateway.batches.records import Result


def answered(custom_id: str, request_id: str, status: int, body: bytes) -> Result | None:
    """Write a line that an engine answered; None when its answer is no JSON.

    Args:
        custom_id: of the line.
        request_id: hex.
        status: of HTTP; other than 200 makes it a failure.
        body: the engine's answer.
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    response = {"status_code": status, "request_id": request_id, "body": answer}
    return Result(status == 200, _line(request_id, custom_id, response, None))  # noqa: PLR2004  (HTTP's own number)


def refused(custom_id: str, request_id: str, error: StreamError) -> Result:
    """Write a line whose request was refused, with the status and body that a client would have got."""
    if isinstance(error, UpstreamRejected):
        made = answered(custom_id, request_id, error.status, error.body)
        if made is not None:
            return made
    status = error.status if isinstance(error, UpstreamRejected) else error.status_hint
    body = {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
    response = {"status_code": status, "request_id": request_id, "body": body}
    return Result(ok=False, text=_line(request_id, custom_id, response, None))


def not_run(record_id: str, number: int, custom_id: str | None, *, code: str, message: str) -> Result:
    """Write a line that was never asked.

    Args:
        record_id: of the batch.
        number: of the line.
        custom_id: None when the line has none that can be read.
        code: why, for programs.
        message: why, for people.
    """
    error = {"code": code, "message": message, "line": number}
    return Result(ok=False, text=_line(f"{record_id[-24:]}{number:08x}", custom_id, None, error))


def _line(
    request_id: str, custom_id: str | None, response: dict[str, Any] | None, error: dict[str, Any] | None
) -> bytes:
    return orjson.dumps({"id": f"batch_req_{request_id}", "custom_id": custom_id, "response": response, "error": error})
