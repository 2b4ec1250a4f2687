"""Questions with one answer: the server's edition, what a name belongs to, and how the server understands a query."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from alembic_timescaledb.names import escaped, quoted, sqlstate

log = logging.getLogger(__name__)

_EXTENSION = (
    "SELECT extversion, current_setting('timescaledb.license', true) FROM pg_extension WHERE extname = 'timescaledb'"
)
_AVAILABLE = (
    "SELECT count(*) FROM pg_available_extensions WHERE name = 'timescaledb' AND installed_version IS NULL"
    " AND current_setting('shared_preload_libraries') LIKE '%timescaledb%'"
)
_MANAGED = (
    "SELECT to_regclass(format('%I.%I', hypertable_schema, hypertable_name)) AS oid"
    " FROM timescaledb_information.hypertables"
    " UNION ALL SELECT to_regclass(format('%I.%I', view_schema, view_name))"
    " FROM timescaledb_information.continuous_aggregates"
)
_NAME_TAKEN = (
    "SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'i' THEN 'index'"
    "  WHEN 'S' THEN 'sequence' ELSE 'table' END FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relname = :view AND n.nspname = coalesce(CAST(:schema AS text), current_schema())"
    " AND NOT EXISTS (SELECT FROM timescaledb_information.continuous_aggregates"
    "  WHERE view_schema = n.nspname AND view_name = c.relname)"
)
_READS_MANAGED = (
    "SELECT EXISTS (SELECT d.refobjid FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid"  # noqa: S608 # no names but these
    f" WHERE r.ev_class = CAST(:view AS regclass) INTERSECT ({_MANAGED}))"
)
_PROBE = "timescale_probe"


class Feature(StrEnum):
    """What editions differ in."""

    HYPERTABLES = "hypertables"
    RETENTION = "retention policies"
    COLUMNSTORE = "columnstore"
    AGGREGATES = "continuous aggregates"


class Edition(StrEnum):
    """PostgreSQL without TimescaleDB, or one of TimescaleDB's two editions."""

    PLAIN = "plain"
    APACHE = "apache"
    COMMUNITY = "community"

    @property
    def has_hypertables(self) -> bool:
        """Whether tables can be split into chunks."""
        return self is not Edition.PLAIN

    @property
    def has_policies(self) -> bool:
        """Whether the server runs background jobs, such as retention."""
        return self is Edition.COMMUNITY

    def has(self, feature: Feature) -> bool:
        """Whether the edition has the feature."""
        return self.has_hypertables if feature is Feature.HYPERTABLES else self.has_policies


def edition(connection: Connection) -> Edition:
    """Return the edition of the server; `PLAIN` if this database lacks the extension."""
    row = connection.execute(text(_EXTENSION)).one_or_none()
    if row is None:
        return Edition.PLAIN
    return Edition.COMMUNITY if row[1] == "timescale" else Edition.APACHE


def version(connection: Connection) -> str | None:
    """Return the version of the TimescaleDB extension in this database; None if it lacks the extension."""
    row = connection.execute(text(_EXTENSION)).one_or_none()
    return None if row is None else str(row[0])


def available(connection: Connection) -> bool:
    """Whether this database lacks the extension and could create it, because the server has loaded it."""
    return bool(connection.scalar(text(_AVAILABLE)))


def enable(connection: Connection) -> Edition:
    """Create the extension if the server has loaded it, log the edition and return it."""
    if available(connection):
        log.info("creating extension timescaledb")
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS timescaledb"))
    found = edition(connection)
    log.info("the server is %s", found if found is Edition.PLAIN else f"TimescaleDB, {found} edition")
    return found


def is_managed(connection: Connection, relation: str, schema: str | None = None) -> bool:
    """Whether the name belongs to a hypertable or a continuous aggregate."""
    found = text(f"SELECT to_regclass(:relation) IN ({_MANAGED})")
    return bool(connection.scalar(found, {"relation": quoted(relation, schema)}))


def other_relation(connection: Connection, view: str, schema: str | None) -> str | None:
    """Return the kind of relation that has the name, such as `table`; None if it is free or a continuous aggregate."""
    found: str | None = connection.scalar(text(_NAME_TAKEN), {"view": view, "schema": schema})
    return found


def reads_managed(connection: Connection, query: str) -> bool:
    """Whether the query reads a hypertable or a continuous aggregate, as the query of an aggregate must."""
    with _probed(connection, query) as view:
        return view is not None and bool(connection.scalar(text(_READS_MANAGED), {"view": view}))


def canonical(connection: Connection, query: str) -> str | None:
    """Return the query in PostgreSQL's own spelling, to compare queries by; None if PostgreSQL refuses it."""
    with _probed(connection, query) as view:
        if view is None:
            return None
        found: str | None = connection.scalar(text("SELECT pg_get_viewdef(CAST(:view AS regclass))"), {"view": view})
        return found


@contextmanager
def _probed(connection: Connection, query: str) -> Iterator[str | None]:
    """Yield the name of a temporary view of the query, or None if PostgreSQL refuses it; the view is undone."""
    savepoint = connection.begin_nested()
    try:
        try:
            connection.execute(text(escaped(f"CREATE TEMPORARY VIEW {_PROBE} AS {query}")))
        except DBAPIError as error:
            if not _is_about_the_query(error):
                raise
            yield None
        else:
            yield f"pg_temp.{_PROBE}"
    finally:
        savepoint.rollback()


def _is_about_the_query(error: DBAPIError) -> bool:
    """Whether the query has invalid data, names or syntax; a lack of privileges (42501) says nothing about it."""
    found = sqlstate(error) or ""
    return found[:2] in ("22", "42") and found != "42501"
