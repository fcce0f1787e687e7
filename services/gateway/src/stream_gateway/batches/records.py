"""What is kept of a file, a batch and a line. Pure."""

from typing import Literal

import msgspec

Status = Literal["validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"]
Ending = Literal["completed", "failed", "expired", "cancelled"]


class FileRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file; its content lies in chunks."""

    id: str
    owner: str  # id of the principal
    filename: str
    purpose: str
    created: float  # unix seconds
    expires: float
    bytes: int = 0
    chunks: int = 0
    privacy: str = ""  # class of its text, as it was when it came
    whole: bool = False  # false while it is being uploaded


class ResponseRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stored response of the Responses API; what was said lies in chunks."""

    id: str  # begins with the time, so that the oldest come first
    owner: str  # id of the principal
    created: float  # unix seconds
    expires: float
    bytes: int
    chunks: int
    privacy: str  # class of the whole conversation's text


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a batch failed, or what is wrong with one of its lines."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A batch."""

    id: str
    owner: str  # id of the principal
    endpoint: str
    input_file: str
    output_file: str  # names that the files get when there is something in them
    error_file: str
    window: str  # as the client wrote it
    privacy: str  # class of its text: the highest of file, key and header
    created: float  # unix seconds
    expires: float
    output_expires: float
    status: Status = "validating"
    ending: Ending | None = None  # what it ends as, once that is known
    project: str = ""  # id of the one that its owner worked for when making it; empty: none
    metadata: dict[str, str] = {}
    total: int = 0  # lines that are not blank
    completed: int = 0  # counted when it has ended; until then the results are counted
    failed: int = 0
    has_output: bool = False
    has_errors: bool = False
    refused: bool = False  # as a whole: no line of it runs or is reported
    problems: list[Problem] = []
    stamps: dict[str, float] = {}  # status -> since when
    holder: str = ""  # the runner that validates or finalises it
    held_until: float = 0.0


class Wish(msgspec.Struct, frozen=True):
    """What a client asks for."""

    input_file: str
    endpoint: str
    window: str
    metadata: dict[str, str]


class LineWork(msgspec.Struct, frozen=True, array_like=True):
    """Where a line of a batch is found: what the work queue carries."""

    owner_tag: str
    offset: int  # bytes from the file's beginning
    length: int


class Result(msgspec.Struct, frozen=True, array_like=True):
    """What became of a line, as it will stand in its file."""

    ok: bool
    text: bytes = b""  # one line of JSON without its end; empty: it lies in a file of its own
    aside: str = ""  # that file's id
    chunks: int = 0  # of that file


class Usage(msgspec.Struct, frozen=True):
    """What an owner has."""

    files: int
    bytes: int


def usage(files: list[FileRecord]) -> Usage:
    """Add up an owner's files."""
    return Usage(len(files), sum(file.bytes for file in files))
