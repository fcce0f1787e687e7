"""GET /v1/usage: what has been used, by whom, where and when; GET /v1/audit: the ledger itself, for admins."""

import csv
import datetime
import io
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, BeforeValidator, ConfigDict

from stream_core.audit.entries import CONTENTS, Entry, Fields
from stream_core.audit.verify import Checking
from stream_core.errors import InvalidRequest, NotAllowed
from stream_gateway.accounts.entrance import Entrance
from stream_gateway.accounts.faults import AccountsAway, AccountsOff
from stream_gateway.accounts.principal import Principal
from stream_gateway.backends.registry import Registry
from stream_gateway.batches.service import Batches
from stream_gateway.routes.callers import Callers
from stream_gateway.routes.models import Error

if TYPE_CHECKING:
    from stream_gateway.accounts.database import Database

_DAYS: Final = 30
_LONGEST_DAYS: Final = 3_660
_AT_ONCE: Final = 500
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
Group = Literal["day", "key", "user", "project", "tier", "model"]


def _written_out(value: object) -> object:
    """Refuse whatever else would be taken for a day: a number would be seconds since 1970."""
    if isinstance(value, str) and not _DAY.fullmatch(value):
        raise ValueError("a day is written YYYY-MM-DD")
    return value


_Day = Annotated[datetime.date, BeforeValidator(_written_out)]
_From = Annotated[_Day | None, Query(alias="from", description="First day, UTC; 30 days ago by default.")]
_To = Annotated[_Day | None, Query(alias="to", description="Last day, UTC; today by default.")]

_Name = Annotated[str | None, Query(max_length=500, pattern=r"^[^\x00]*$")]


class UsageRow(BaseModel):
    """What requests of one kind have used; of what is not grouped by nothing is said."""

    model_config = ConfigDict(extra="allow")

    requests: int
    prompt_tokens: int
    completion_tokens: int
    dollars: float
    gpu_hours: float


class Usage(BaseModel):
    """What has been used."""

    object: Literal["usage"] = "usage"
    first: datetime.date
    last: datetime.date
    group_by: list[Group]
    data: list[UsageRow]
    has_more: bool
    """Whether there are more rows than are given: ask for fewer groups or days."""


class Verified(BaseModel):
    """Whether the ledger is as it was written."""

    object: Literal["audit.verification"] = "audit.verification"
    ok: bool
    entries: int
    chains: int
    faults: list[str]


def usage_routes(entrance: Entrance, registry: Registry, batches: Batches) -> APIRouter:
    """Build the routes.

    Args:
        entrance: who may ask.
        registry: with the policy.
        batches: with the ledger.
    """
    router = APIRouter(
        prefix="/v1",
        tags=["usage"],
        dependencies=[Depends(HTTPBearer(auto_error=False))],
        responses={
            400: {"model": Error, "description": "A field is wrong"},
            401: {"model": Error, "description": "No valid API key"},
            403: {"model": Error, "description": "Only for administrators"},
            404: {"model": Error, "description": "This deployment keeps no ledger"},
            503: {"model": Error, "description": "The ledger can't be read now"},
        },
    )
    caller = Annotated[Principal, Depends(Callers(entrance, registry))]

    @router.get("/usage", summary="What has been used", operation_id="get_usage")
    async def get_usage(
        principal: caller,
        group_by: Annotated[list[Group] | None, Query()] = None,
        first: _From = None,
        last: _To = None,
        user: _Name = None,
        project: _Name = None,
        key: _Name = None,
        tier: _Name = None,
        model: _Name = None,
    ) -> Usage:
        from stream_gateway.ledger.usage import MOST_ROWS, usage  # noqa: PLC0415  (SQLAlchemy, loaded when needed)

        begin, end = _days(first, last)
        told = {"user": user, "project": project, "key": key, "tier": tier, "model": model}
        only: dict[Any, str] = {name: value for name, value in told.items() if value is not None}
        if not principal.admin:
            own = ("user", principal.user) if principal.user else ("key", principal.id)
            if only.setdefault(*own) != own[1]:
                raise NotAllowed(f"{own[0]}: only administrators see the usage of others", param=own[0])
        groups: list[Group] = list(dict.fromkeys(group_by or ["day"]))
        rows = await usage(_database(batches), groups, begin, end, only)
        return Usage(
            first=begin,
            last=end,
            group_by=groups,
            data=[UsageRow(**row) for row in rows[:MOST_ROWS]],
            has_more=len(rows) > MOST_ROWS,
        )

    @router.get(
        "/audit",
        summary="The ledger, entry by entry",
        operation_id="export_audit",
        response_class=StreamingResponse,
        responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}, "text/csv": {}}}},
    )
    async def export(
        principal: caller, form: Literal["jsonl", "csv"] = "jsonl", first: _From = None, last: _To = None
    ) -> StreamingResponse:
        _demand_admin(principal)
        after = None if last is None or last == datetime.date.max else last + datetime.timedelta(days=1)
        since, until = _moment(first), _moment(after)
        texts = _entries(_database(batches), since, until)
        head = await anext(texts, None)
        if form == "csv":
            return StreamingResponse(_csv(head, texts), media_type="text/csv; charset=utf-8")
        return StreamingResponse(_jsonl(head, texts), media_type="application/x-ndjson")

    @router.get("/audit/verify", summary="Check the ledger's chains", operation_id="verify_audit")
    async def check(principal: caller) -> Verified:
        _demand_admin(principal)
        database = _database(batches)
        checking = Checking(await batches.books.road.heads())
        async for text in _entries(database, None, None):
            checking.look(text.encode())
        seen = checking.finish()
        return Verified(ok=not seen.faults, entries=seen.entries, chains=len(seen.chains), faults=seen.faults)

    return router


def _database(batches: Batches) -> "Database":
    settings, found = batches.settings, batches.books.database
    if found is None:
        if not settings.store_url and settings.state_dir is None:
            raise AccountsOff("this gateway has no store that the ledger would be moved to")
        raise AccountsAway("the store that the ledger is kept in can't be read now")
    return found


def _demand_admin(principal: Principal) -> None:
    if not principal.admin:
        raise NotAllowed("only administrators see the ledger")


def _days(first: datetime.date | None, last: datetime.date | None) -> tuple[datetime.date, datetime.date]:
    end = last or datetime.datetime.now(datetime.UTC).date()
    begin = first or end - datetime.timedelta(days=min(_DAYS, end.toordinal() - 1))
    if begin > end:
        raise InvalidRequest(f"from: {begin} is after {end}", param="from")
    if (end - begin).days > _LONGEST_DAYS:
        words = f"from: {(end - begin).days:,} days are asked for, at most {_LONGEST_DAYS:,} are added up"
        raise InvalidRequest(words, param="from")
    return begin, end


def _moment(day: datetime.date | None) -> float | None:
    return None if day is None else datetime.datetime.combine(day, datetime.time(), datetime.UTC).timestamp()


async def _entries(database: "Database", since: float | None, until: float | None) -> AsyncIterator[str]:
    from stream_gateway.ledger.table import entries  # noqa: PLC0415  (SQLAlchemy, loaded when needed)

    async for text in entries(database, since, until):
        yield text


async def _jsonl(head: str | None, texts: AsyncIterator[str]) -> AsyncIterator[bytes]:
    if head is not None:
        yield head.encode() + b"\n"
        async for text in texts:
            yield text.encode() + b"\n"


async def _csv(head: str | None, texts: AsyncIterator[str]) -> AsyncIterator[bytes]:
    """Write those of requests, a column for each field."""
    names = [name for name in Fields.__struct_fields__ if name not in CONTENTS]
    page = io.StringIO()
    writer = csv.writer(page)
    writer.writerow(names)
    texts_left = texts if head is not None else None
    text = head
    while text is not None and texts_left is not None:
        fields = msgspec.json.decode(text, type=Entry).request
        if fields is not None:
            writer.writerow([_cell(getattr(fields, name)) for name in names])
        if page.tell() > _AT_ONCE * 100:
            yield page.getvalue().encode()
            page.seek(0)
            page.truncate()
        text = await anext(texts_left, None)
    yield page.getvalue().encode()


def _cell(value: object) -> object:
    """Keep a text from being read as a formula by a spreadsheet."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value
