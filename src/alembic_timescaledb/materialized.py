"""Where a server keeps what it has computed of continuous aggregates: reads that want no more ask there."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, TableClause, column, table, text

from alembic_timescaledb.aggregate import ContinuousAggregate
from alembic_timescaledb.edition import Edition, edition


def materialized(connection: Connection, declared: Iterable[ContinuousAggregate]) -> dict[str, TableClause]:
    """Return the table behind each aggregate that the server has, by the aggregate's name.

    It holds the buckets that were refreshed and no others, where the view adds what came after the newest of them.
    """
    wanted = {aggregate.name: aggregate for aggregate in declared}
    if edition(connection) is Edition.PLAIN:
        return {}
    rows = connection.execute(
        text(
            "SELECT view_name, materialization_hypertable_schema, materialization_hypertable_name"
            " FROM timescaledb_information.continuous_aggregates WHERE view_name = ANY(:names)"
            # As queries find them, along the search path.
            " AND to_regclass(quote_ident(view_name)) = to_regclass(format('%I.%I', view_schema, view_name))"
        ),
        {"names": list(wanted)},
    )
    return {
        name: table(stored, *(column(part.name, part.type) for part in wanted[name].table.c), schema=schema)
        for name, schema, stored in rows
    }
