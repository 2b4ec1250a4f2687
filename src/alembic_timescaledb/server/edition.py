"""Which TimescaleDB a server has: none, the Apache edition or the Community edition; and what each can do."""

from __future__ import annotations

import logging
from enum import StrEnum

from sqlalchemy import Connection, text

log = logging.getLogger(__name__)


class Feature(StrEnum):
    """What editions differ in."""

    HYPERTABLES = "hypertables"
    RETENTION = "retention policies"
    COLUMNSTORE = "columnstore"
    AGGREGATES = "continuous aggregates"


class Edition(StrEnum):
    """What kind of server this is."""

    PLAIN = "plain"
    APACHE = "apache"
    COMMUNITY = "community"

    @property
    def has_hypertables(self) -> bool:
        """Whether tables can be split into chunks."""
        return self is not Edition.PLAIN

    @property
    def has_policies(self) -> bool:
        """Whether the server runs jobs of its own, such as retention."""
        return self is Edition.COMMUNITY

    def has(self, feature: Feature) -> bool:
        """Whether the edition can do it."""
        return self.has_hypertables if feature is Feature.HYPERTABLES else self.has_policies


def edition(connection: Connection) -> Edition:
    """Return the edition of the server, as far as this database is concerned."""
    row = connection.execute(
        text(
            "SELECT extversion, current_setting('timescaledb.license', true)"
            " FROM pg_extension WHERE extname = 'timescaledb'"
        )
    ).one_or_none()
    if row is None:
        return Edition.PLAIN
    return Edition.COMMUNITY if row[1] == "timescale" else Edition.APACHE


def version(connection: Connection) -> str | None:
    """Return the version of the TimescaleDB extension in this database, None where it has none."""
    found: str | None = connection.scalar(text("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"))
    return found


def available(connection: Connection) -> bool:
    """Whether the server has the extension loaded, and this database could create it but has not."""
    return bool(
        connection.scalar(
            text(
                "SELECT count(*) FROM pg_available_extensions WHERE name = 'timescaledb' AND installed_version IS NULL"
                " AND current_setting('shared_preload_libraries') LIKE '%timescaledb%'"
            )
        )
    )


def enable(connection: Connection) -> Edition:
    """Create the extension where the server has it loaded, and return the edition; log both."""
    if available(connection):
        log.info("creating extension timescaledb")
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS timescaledb"))
    found = edition(connection)
    log.info("the server is %s", found if found is Edition.PLAIN else f"TimescaleDB, {found} edition")
    return found
