"""Files and batches in OpenAI's form."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stream_gateway.batches.records import BatchRecord, FileRecord
from stream_gateway.batches.states import CLOSED


class FileObject(BaseModel):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class FileList(BaseModel):
    """Some of an owner's files."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    """A file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class CreateBatch(BaseModel):
    """What a batch is made from."""

    model_config = ConfigDict(extra="forbid")

    input_file_id: str
    endpoint: str
    completion_window: str
    """A number and s, m, h or d, such as 24h."""
    metadata: dict[str, str] | None = None


class RequestCounts(BaseModel):
    """How far a batch is."""

    total: int
    completed: int
    failed: int


class BatchProblem(BaseModel):
    """What is wrong with a batch, or with one of its lines."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchProblems(BaseModel):
    """The first of them."""

    object: Literal["list"] = "list"
    data: list[BatchProblem]


class Batch(BaseModel):
    """A batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchProblems | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None = Field(default=None)


class BatchList(BaseModel):
    """Some of an owner's batches."""

    object: Literal["list"] = "list"
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool


def file_object(file: FileRecord) -> FileObject:
    """Show a file."""
    return FileObject(
        id=file.id,
        bytes=file.bytes,
        created_at=int(file.created),
        expires_at=int(file.expires),
        filename=file.filename,
        purpose=file.purpose,
    )


def batch_object(batch: BatchRecord) -> Batch:
    """Show a batch."""
    ended = batch.status in CLOSED
    problems = [BatchProblem(code=p.code, message=p.message, line=p.line, param=p.param) for p in batch.problems]
    stamps = {f"{status}_at": int(at) for status, at in batch.stamps.items()}
    return Batch(
        id=batch.id,
        endpoint=batch.endpoint,
        errors=BatchProblems(data=problems) if problems else None,
        input_file_id=batch.input_file,
        completion_window=batch.window,
        status=batch.status,
        output_file_id=batch.output_file if ended and batch.has_output else None,
        error_file_id=batch.error_file if ended and batch.has_errors else None,
        created_at=int(batch.created),
        in_progress_at=stamps.get("in_progress_at"),
        expires_at=int(batch.expires),
        finalizing_at=stamps.get("finalizing_at"),
        completed_at=stamps.get("completed_at"),
        failed_at=stamps.get("failed_at"),
        expired_at=stamps.get("expired_at"),
        cancelling_at=stamps.get("cancelling_at"),
        cancelled_at=stamps.get("cancelled_at"),
        request_counts=RequestCounts(total=batch.total, completed=batch.completed, failed=batch.failed),
        metadata=batch.metadata or None,
    )
