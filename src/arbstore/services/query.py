"""A read of history before it runs: records are made of it in `series`, frames elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import index
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Select, Table, select

from arbstore.errors import ValidationError
from arbstore.services import reach
from arbstore.services.service import in_utc

Window: TypeAlias = tuple[datetime | None, datetime | None, int | None]  # since, until, limit

_MOST_ROWS = 2**63 - 1  # PostgreSQL's bigint
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")  # what PostgreSQL cannot even be asked for


@dataclass(frozen=True, slots=True)
class Query:
    """A statement whose columns, with the `constants` that all rows share, are the fields of a stored record.

    Its rows are oldest first; with a limit `newest_first`, for the newest are those that it leaves. These may be found
    without reading all chunks: the rows from one of the `starts` on have them, if they are as many as the limit.
    """

    table: Table
    statement: Select[Any]
    constants: Mapping[str, Any]
    limit: int | None
    starts: tuple[datetime | None, ...]

    @property
    def newest_first(self) -> bool:
        """Whether a limit turned the rows round."""
        return self.limit is not None

    def from_each_start(self) -> Iterator[Select[Any]]:
        """Yield the statement as it is from each of the starts on, which lie ever longer back."""
        for start in self.starts:
            yield self.statement.where(*reach.after(self.table.c.timestamp, start))

    def oldest_first(self) -> Select[Any]:
        """Return a statement of the same rows, oldest first; after a limit the server has to sort them for it."""
        if not self.newest_first:
            return self.statement
        rows = self.statement.subquery("newest")
        return select(rows).order_by(*(rows.c[name] for name in _order(self.table) if name in rows.c))


def history(table: Table, series: Mapping[str, Any], window: Window, names: Mapping[str, str]) -> Query:
    """Return the query of one series, given by columns of the table's key; those are not sent once a row.

    Raises ValidationError for a window that is none, and for a text that no row can have.
    """
    since, until, limit = checked_window(window)
    for name, value in series.items():
        _refuse_no_text(name, value)
    sent = [column for column in table.c if column.name not in series]
    conditions = [table.c[name] == value for name, value in series.items()]
    order: list[ColumnElement[Any]] = [table.c[name] for name in _order(table)]
    if limit is not None:
        order = [column.desc() for column in order]
    rows = select(*sent).where(*conditions, *within(table.c.timestamp, since, until))
    starts = (None,) if limit is None else tuple(reach.starts(table, since, until))
    return Query(table, rows.order_by(*order).limit(limit), {**names, **series}, limit, starts)


def checked_window(window: Window) -> Window:
    """Return since and until in UTC, and the limit; raise ValidationError for what is no window."""
    since, until, limit = window
    since = None if since is None else in_utc(since, "since")
    until = None if until is None else in_utc(until, "until")
    if since is not None and until is not None and since > until:
        raise ValidationError(f"{since} is after until {until}", field="since")
    return since, until, None if limit is None else _checked_limit(limit)


def _checked_limit(limit: int) -> int:
    try:
        count = index(limit)
    except TypeError as error:
        raise ValidationError(f"must be an integer, is {limit!r}", field="limit") from error
    if not 1 <= count <= _MOST_ROWS:
        raise ValidationError(f"must be 1 or more, and at most {_MOST_ROWS}, is {limit}", field="limit")
    return count


def _refuse_no_text(field: str, value: object) -> None:
    if isinstance(value, str) and _NO_TEXT.search(value):
        raise ValidationError(f"must be a text, {value!r} has a NUL or half a character in it", field=field)


def within(time: ColumnElement[datetime], since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    """Return the conditions of [since, until), both in UTC."""
    bounds = [] if since is None else [time >= since]
    return bounds if until is None else [*bounds, time < until]


def _order(table: Table) -> list[str]:
    """Return the columns that rows are ordered by: the time, and the rest of the key to break ties."""
    key = [column.name for column in table.primary_key]
    return ["timestamp", *(name for name in key if name != "timestamp")]
