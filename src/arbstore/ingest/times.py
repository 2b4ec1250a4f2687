"""Times as files write them, to aware datetimes; by integer arithmetic, as floats lose microseconds."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_MS = 86_400_000


def from_milliseconds(since_epoch: int) -> datetime:
    """Return the time that is so many milliseconds after the epoch; raise ValueError beyond the year 9999."""
    try:
        return _EPOCH + timedelta(milliseconds=since_epoch)
    except OverflowError:
        raise ValueError(f"{since_epoch} ms after 1970 is beyond the year 9999") from None


def from_nanoseconds(since_epoch: int) -> datetime:
    """Return the time so many nanoseconds after the epoch, cut to the microsecond; raise as `from_milliseconds`."""
    try:
        return _EPOCH + timedelta(microseconds=since_epoch // 1000)
    except OverflowError:
        raise ValueError(f"{since_epoch} ns after 1970 is beyond the year 9999") from None


def aware(value: str | datetime, utc_offset: timedelta | None) -> datetime:
    """Return a time, given in ISO format, in UTC; `utc_offset` is that of times which have no zone.

    Raises ValueError if it is no time, or has no zone and there is no offset: which it is cannot be guessed.
    """
    moment = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
    if not isinstance(moment, datetime):
        raise ValueError(f"{value!r} is no time such as 2024-08-08T12:00:00Z")
    if moment.utcoffset() is None:
        if utc_offset is None:
            raise ValueError(f"{value} has no time zone: say with --utc-offset how far its clock is ahead of UTC")
        moment = moment.replace(tzinfo=timezone(utc_offset))
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{value} is beyond the years 1 to 9999 in UTC") from None


def of_day(day: date, milliseconds: str, utc_offset: timedelta | None) -> datetime:
    """Return the time so many milliseconds after midnight of a day; raises what `aware` does."""
    if not (milliseconds.isascii() and milliseconds.isdigit()) or int(milliseconds) >= _DAY_MS:
        raise ValueError(f"{milliseconds!r} is no count of milliseconds since midnight")
    midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 # the zone is what `aware` adds
    return aware(midnight + timedelta(milliseconds=int(milliseconds)), utc_offset)
