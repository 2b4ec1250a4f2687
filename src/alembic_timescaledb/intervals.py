"""Lengths of time, as SQL and as people say them. No months: they have no length."""

from __future__ import annotations

from datetime import timedelta

from alembic_timescaledb.errors import DeclarationError

_UNITS = (
    ("day", timedelta(days=1)),
    ("hour", timedelta(hours=1)),
    ("minute", timedelta(minutes=1)),
    ("second", timedelta(seconds=1)),
    ("microsecond", timedelta(microseconds=1)),
)


def spoken(length: timedelta) -> str:
    """Return the length in the largest unit that divides it: 90 minutes, 7 days."""
    unit, size = next((unit, size) for unit, size in _UNITS if not length % size)
    count = length // size
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def interval(length: timedelta) -> str:
    """Return the length as a literal of SQL."""
    return f"INTERVAL '{spoken(length)}'"


def positive(length: timedelta, what: str) -> None:
    """Raise DeclarationError unless the length is one, and more than zero."""
    if not isinstance(length, timedelta):
        raise DeclarationError(f"{what} must be a timedelta, is {length!r}")
    if length <= timedelta(0):
        raise DeclarationError(f"{what} must be more than zero, is {length}")
