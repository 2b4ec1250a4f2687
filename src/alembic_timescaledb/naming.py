"""Names and texts as SQL writes them."""

from __future__ import annotations

from sqlalchemy.dialects import postgresql

LONGEST_NAME = 63  # bytes; PostgreSQL cuts what is longer


def literal(value: str) -> str:
    """Return the text as a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def quoted(name: str, schema: str | None = None) -> str:
    """Return the name as SQL writes it, quoted where it must be."""
    # The default style of parameters would double each percent sign.
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call] # untyped in SQLAlchemy
    return ".".join(dialect.identifier_preparer.quote(part) for part in (schema, name) if part)


def regclass(name: str, schema: str | None) -> str:
    """Return the name as an argument of TimescaleDB's functions."""
    return literal(quoted(name, schema))
