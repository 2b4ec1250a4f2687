"""How names, texts and lengths of time are written in SQL, and the errors' type and codes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError


class DeclarationError(ValueError):
    """A declaration cannot work on TimescaleDB. The message names the table, the mistake and what to do."""


LONGEST_NAME = 63  # bytes; PostgreSQL cuts what is longer
TOO_LONG = f"its name is longer than {LONGEST_NAME} bytes, where PostgreSQL cuts it: shorten it"


def literal(value: str) -> str:
    """Return the text as a string literal."""
    return "'" + value.replace("'", "''") + "'"


def quoted(name: str, schema: str | None = None) -> str:
    """Return the name as SQL writes it, with quotes only if it needs them."""
    # The default style of parameters would double each percent sign.
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call] # untyped in SQLAlchemy
    return ".".join(dialect.identifier_preparer.quote(part) for part in (schema, name) if part)


def regclass(name: str, schema: str | None) -> str:
    """Return the name as an argument of TimescaleDB's functions."""
    return literal(quoted(name, schema))


_UNITS = [(unit, timedelta(**{f"{unit}s": 1})) for unit in ("day", "hour", "minute", "second", "microsecond")]


def spoken(length: timedelta) -> str:
    """Return the length in the largest unit that divides it, such as 90 minutes or 7 days."""
    count, unit = next((length // size, unit) for unit, size in _UNITS if not length % size)
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def interval(length: timedelta) -> str:
    """Return the length as an interval literal."""
    return f"INTERVAL '{spoken(length)}'"


def as_sql(value: object) -> str:
    """Return the value as a literal; a moment is untyped and in UTC, for columns with and without a time zone."""
    if value is None:
        return "NULL"
    if isinstance(value, datetime):
        return literal((value.astimezone(UTC) if value.tzinfo else value).isoformat())
    if isinstance(value, bool):
        return str(value).lower()
    return interval(value) if isinstance(value, timedelta) else literal(str(value))


def positive(length: timedelta, what: str) -> None:
    """Raise DeclarationError unless the length is a timedelta above zero."""
    if not isinstance(length, timedelta):
        raise DeclarationError(f"{what} must be a timedelta, is {length!r}")
    if length <= timedelta(0):
        raise DeclarationError(f"{what} must be more than zero, is {length}")


def escaped(statement: str) -> str:
    """Return the statement for `text()`, in which no colon begins a parameter."""
    return statement.replace(":", "\\:")


def sqlstate(error: DBAPIError) -> str | None:
    """Return PostgreSQL's code of the error."""
    found: str | None = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    return found
