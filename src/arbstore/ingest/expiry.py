"""Rows that are older than what their table keeps: found before they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from arbstore.database import Store
from arbstore.errors import ArbstoreError, ValidationError
from arbstore.ingest.rows import KINDS, Row
from arbstore.records import columns
from arbstore.services.retention import Retention


class ExpiredRows(NamedTuple):
    """The rows of a batch that are older than their table's retention: how many, the oldest time, and its line."""

    retention: Retention
    rows: int
    oldest: datetime
    line: int

    def __str__(self) -> str:
        """Say where, how old, what is kept, and what will become of it."""
        table, kept = self.retention.table, str(self.retention.keep_for).removesuffix(", 0:00:00")
        return f"line {self.line}: is of {_shown(self.oldest)}, {table} keeps {kept}, and {_fate(self.retention)}"


class ExpiredRowsError(ArbstoreError):
    """A file holds rows that are older than what their table keeps, and would be gone soon; nothing of it is written.

    `tables` has what was found in the first batch that held such rows, by table.
    """

    def __init__(self, path: Path, tables: tuple[ExpiredRows, ...]) -> None:
        """Say what will happen, and what can be done."""
        super().__init__(
            f"{path}, {'; '.join(map(str, tables))}. Nothing of the file was written:"
            " --keep (Expired.KEEP) writes it and keeps the table for good from now on,"
            " --anyway (Expired.ANYWAY) writes it and leaves the retention as it is"
        )
        self.path = path
        self.tables = tables


class Expiry:
    """Tells the rows of one file that have outlived their table's retention."""

    def __init__(self, store: Store) -> None:
        """Ask `store` for the retention once, when the first rows come."""
        self._store = store
        self._known: dict[str, Retention] = {}

    async def find(self, kinds: Mapping[str, list[tuple[int, Row]]]) -> tuple[ExpiredRows, ...]:
        """Return the rows that could be stored, and would be too old, by table."""
        found = []
        for kind, rows in kinds.items():
            retention = await self._retention(kind)
            old = [(row.values["timestamp"], line) for line, row in _old(retention, rows) if _is_sound(kind, row)]
            if old:
                oldest, line = min(old)
                found.append(ExpiredRows(retention, len(old), oldest, line))
        return tuple(found)

    async def count(self, kind: str, rows: list[tuple[int, Row]]) -> tuple[str, int]:
        """Return the table of the kind, and how many of the rows are too old for it."""
        retention = await self._retention(kind)
        return retention.table, sum(1 for _ in _old(retention, rows))

    async def _retention(self, kind: str) -> Retention:
        if not self._known:
            self._known = {found.table: found for found in await self._store.maintenance.retention()}
        service: Any = getattr(self._store, kind)
        return self._known[service.table.name]


def _old(retention: Retention, rows: list[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    if (cutoff := retention.cutoff) is None:
        return
    for line, row in rows:
        at = row.values.get("timestamp")
        # What is no aware time is refused where it is written.
        if isinstance(at, datetime) and at.utcoffset() is not None and at < cutoff:
            yield line, row


def _is_sound(kind: str, row: Row) -> bool:
    try:
        columns(KINDS[kind], [row.values])
    except ValidationError:
        return False
    return True


def _fate(retention: Retention) -> str:
    if not retention.policy:
        return "the next `arbstore db cleanup` removes it"
    when = "" if retention.next_run is None else f", {_shown(retention.next_run)}"
    return f"the server's policy drops it at its next run{when}"


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
