"""What Globus Compute says when something fails, in words for an operator. Pure.

it says                            | it means
-----------------------------------+-----------------------------------------------------------------------------
ManagerLost, WorkerLost            | the batch system ended the job: scancel, walltime, memory, a node that failed
MaxResultSizeExceeded              | the worker's end is known, its log was too long to send
ScalingFailed, SubmitException     | the endpoint's batch system did not take the job
the endpoint's own words otherwise | its last line, where a traceback says what happened
"""

from typing import Final

_LONGEST: Final = 400
"""Characters of somebody else's words."""

_MEANINGS: Final = (
    (("ManagerLost", "WorkerLost"), "the batch system ended the job: cancelled, walltime reached, or a node failed"),
    (("MaxResultSizeExceeded",), "it ended; its log was too long to send"),
    (("ScalingFailed", "SubmitException", "BadStateException"), "the endpoint's batch system did not take the job"),
    (("BrokenProcessPool",), "the endpoint's worker process broke"),
)


def task_failure(exception: str) -> str:
    """Say why a task failed.

    Args:
        exception: as the endpoint wrote it, often a whole traceback.
    """
    said = _last_line(exception)
    for names, meaning in _MEANINGS:
        if any(name in exception for name in names):
            return f"{meaning} ({said})"
    return said or "the endpoint says that it failed, and not why"


def refusal(status: int, said: str) -> str:
    """Say why the service refused.

    Args:
        status: of HTTP.
        said: its own words.
    """
    match status:
        case 401:
            meaning = "Globus refuses this service's credentials: client_id or client_secret_file is wrong or revoked"
        case 403:
            meaning = "this service's client may not use the endpoint or the function"
        case 404:
            meaning = "Globus Compute knows no such endpoint or function"
        case 413:
            meaning = "the job is larger than Globus Compute takes"
        case 400 | 422:
            meaning = "Globus Compute or the endpoint does not understand the job, or its user_endpoint_config"
        case 423:
            meaning = "the endpoint is locked by its owner"
        case 429:
            meaning = "Globus Compute takes no more requests now (its rate limit)"
        case _:
            meaning = "Globus Compute has a fault"
    return f"{meaning} ({status}: {shorten(said)})" if said else f"{meaning} ({status})"


def shorten(text: str) -> str:
    """Cut somebody else's words to one line of bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _last_line(text: str) -> str:
    """Find the last line that is words: a traceback's frames are indented, its decoration has no letters."""
    for line in reversed(text.strip().splitlines()):
        if line[:1].strip() and any(character.isalpha() for character in line):
            return shorten(line)
    return shorten(text)
