"""Times and durations as people write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

_UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}


def read_duration(text: str) -> timedelta:
    """Return the duration of a text such as 3d, 12h, 30m, 5s or 1.5h; raise ValueError if it is none."""
    parts = re.fullmatch(rf"(\d+(?:\.\d+)?)\s*({'|'.join(_UNITS)})", text.strip())
    try:
        length = float(parts[1]) * _UNITS[parts[2]] if parts else timedelta(0)
    except OverflowError:
        length = timedelta(0)
    if length <= timedelta(0):
        raise ValueError(f"{text!r} is no duration: it looks like 3d, 12h, 30m or 5s")
    return length


def read_offset(text: str) -> timedelta:
    """Return the distance from UTC of a text such as +03:00, -5 or Z; raise ValueError if it is none."""
    parts = re.fullmatch(r"([+-])(\d{1,2})(?::?([0-5]\d))?", text.strip())
    if text.strip().upper() in ("Z", "UTC"):
        return timedelta(0)
    if parts is None:
        raise ValueError(f"{text!r} is no distance from UTC: it looks like +03:00 or -05:00")
    distance = timedelta(hours=int(parts[2]), minutes=int(parts[3] or 0))
    return -distance if parts[1] == "-" else distance


def read_moment(text: str) -> datetime:
    """Return the time of an ISO 8601 text, in UTC unless it says another zone; raise ValueError if it is none."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is no time: it looks like 2024-08-08, or 2024-08-08T12:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def show_moment(value: datetime) -> str:
    """Return the time in UTC, to the millisecond, or the microsecond where it has one."""
    precision = "microseconds" if value.microsecond % 1000 else "milliseconds"
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", precision)


def time_column(moments: Iterable[datetime]) -> tuple[str, list[str]]:
    """Return a column's header and cells; the date that all times share goes into the header."""
    shown = [show_moment(moment) for moment in moments]
    days = {text[:10] for text in shown}
    return (f"{days.pop()} UTC", [text[11:] for text in shown]) if len(days) == 1 else ("time (UTC)", shown)


def show_duration(value: timedelta) -> str:
    """Return the duration in the largest unit, up to days, that it is a whole number of."""
    for unit in ("d", "h", "m", "s"):
        if value and value % _UNITS[unit] == timedelta(0):
            return f"{value // _UNITS[unit]}{unit}"
    return f"{value / _UNITS['ms']:g}ms"
