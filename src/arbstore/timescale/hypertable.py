"""What a model declares of its hypertable, in the `info` of its table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import MetaData, Table

DECLARED = "hypertable"  # the key in Table.info


@dataclass(frozen=True, slots=True)
class Hypertable:
    """A table split into chunks of `chunk_interval` by `time_column`; rows older than `retention` may go.

    `retention` None keeps everything.
    """

    chunk_interval: timedelta
    retention: timedelta | None = None
    time_column: str = "timestamp"

    @property
    def info(self) -> dict[str, Any]:
        """What goes into `__table_args__` as `info`."""
        return {DECLARED: self}


def declared(table: Table) -> Hypertable | None:
    """Return what the table declares, or None for an ordinary table."""
    value: Hypertable | None = table.info.get(DECLARED)
    return value


def hypertables(metadata: MetaData) -> Iterator[tuple[Table, Hypertable]]:
    """Yield the tables that declare a hypertable, in order of dependency."""
    for table in metadata.sorted_tables:
        if (hypertable := declared(table)) is not None:
            yield table, hypertable
