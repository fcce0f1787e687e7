"""What has been used, added up from the ledger."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from sqlalchemy import func, select

from stream_gateway.accounts.database import Database
from stream_gateway.ledger.table import ledger

Group = Literal["day", "key", "user", "project", "tier", "model"]
MOST_ROWS: Final = 10_000
_COLUMNS: Final = {
    "day": ledger.c.day,
    "key": ledger.c.key_id,
    "user": ledger.c.user_id,
    "project": ledger.c.project_id,
    "tier": ledger.c.tier,
    "model": ledger.c.model,
}
_NANO: Final = 1_000_000_000


async def usage(
    database: Database,
    groups: Sequence[Group],
    first: datetime.date,
    last: datetime.date,
    only: Mapping[Group, str],
) -> list[dict[str, Any]]:
    """Add up what requests have used.

    Args:
        database: of the accounts.
        groups: by what.
        first: day, UTC.
        last: likewise, included.
        only: what must be so: {"user": "u-1"}.

    Returns:
        A row for each combination that there is, in their order; `MOST_ROWS` at most and one more.

    Raises:
        AccountsAway: the database does not answer.
    """
    columns = [_COLUMNS[group].label(group) for group in groups]
    sums = [
        func.count().label("requests"),
        func.sum(ledger.c.prompt_tokens).label("prompt_tokens"),
        func.sum(ledger.c.completion_tokens).label("completion_tokens"),
        func.sum(ledger.c.nanodollars).label("nanodollars"),
        func.sum(ledger.c.gpu_ms).label("gpu_ms"),
    ]
    wanted = select(*columns, *sums).where(
        ledger.c.counts, ledger.c.day >= first.isoformat(), ledger.c.day <= last.isoformat()
    )
    for group, value in only.items():
        wanted = wanted.where(_COLUMNS[group] == value)
    wanted = wanted.group_by(*(_COLUMNS[group] for group in groups)).order_by(*(_COLUMNS[group] for group in groups))
    async with database.reading() as connection:
        rows = (await connection.execute(wanted.limit(MOST_ROWS + 1))).mappings().all()
    return [
        {
            **{group: row[group] for group in groups},
            "requests": row["requests"],
            "prompt_tokens": int(row["prompt_tokens"] or 0),
            "completion_tokens": int(row["completion_tokens"] or 0),
            "dollars": int(row["nanodollars"] or 0) / _NANO,
            "gpu_hours": int(row["gpu_ms"] or 0) / 3_600_000,
        }
        for row in rows
    ]
