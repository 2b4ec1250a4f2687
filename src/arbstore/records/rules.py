"""Rules for the values of fields. A rule checks a whole column at once, or converts one value with a clear error."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum, StrEnum
from operator import attrgetter
from typing import Any

from arbstore.errors import ValidationError

_INFINITY = math.inf
# Seconds read as milliseconds land in January 1970, milliseconds read as seconds in the year 56000.
_EARLIEST = datetime(1971, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 12, 30, tzinfo=UTC)  # a day from the end, for zones west of Greenwich
BEGINNING = datetime.min.replace(tzinfo=UTC)
END = datetime.max.replace(tzinfo=UTC)
_TZINFO = attrgetter("tzinfo")
_LENGTH = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Rule:
    """`fits` says in one pass whether a column can be stored as it is. If it cannot, `parse` is called for each value.

    `parse` returns the value as it is stored, or raises ValueError with the reason.
    """

    fits: Callable[[Sequence[Any]], bool]
    parse: Callable[[Any], Any]


def _all_are(kind: type, column: Sequence[Any]) -> bool:
    return {kind}.issuperset(map(type, column))  # no subclass either: it may compare and print differently


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(value: Any, kind: type[float] | type[Decimal]) -> Any:
    try:
        # repr() is a float's shortest text; Decimal(0.1) would have the 55 digits of its exact value.
        return kind(repr(float(value)) if kind is Decimal and isinstance(value, float) else value)
    except (TypeError, ValueError, InvalidOperation, OverflowError):
        raise ValueError(f"must be a number, is {_shown(value)}") from None


def _bounded(kind: type[float] | type[Decimal], phrase: str, inside: Callable[[Any], bool]) -> Rule:
    def parse(value: Any) -> Any:
        if value is None or "bool" in type(value).__name__:  # numpy's bool is another type, and converts to 1.0
            raise ValueError(f"must be a number, is {_shown(value)}")
        number = _number(value, kind)
        if not math.isfinite(number) or not inside(number):
            raise ValueError(f"must be {phrase}, is {_shown(value)}")
        return number

    return Rule(_floats(inside) if kind is float else _each(kind, inside), parse)


def _floats(inside: Callable[[float], bool]) -> Callable[[Sequence[Any]], bool]:
    has_top = not inside(sys.float_info.max)

    def fits(column: Sequence[Any]) -> bool:
        # min() and max() miss a NaN, the sum does not. If the sum overflows, each value is checked by itself.
        return _all_are(float, column) and (
            not column or (math.isfinite(sum(column)) and inside(min(column)) and (not has_top or inside(max(column))))
        )

    return fits


def _each(kind: type, sound: Callable[[Any], bool]) -> Callable[[Sequence[Any]], bool]:
    return lambda column: _all_are(kind, column) and all(map(sound, column))


def _integer(low: int, high: int) -> Rule:
    def parse(value: Any) -> int:
        try:
            number = int(value) if isinstance(value, str) else value.__index__()
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"must be an integer, is {_shown(value)}") from None
        if isinstance(value, bool) or not low <= number <= high:
            raise ValueError(f"must be an integer from {low} to {high}, is {_shown(value)}")
        return int(number)

    def fits(column: Sequence[Any]) -> bool:
        return _all_are(int, column) and (not column or (low <= min(column) and max(column) <= high))

    return Rule(fits, parse)


def _moment(ahead: timedelta | None) -> Rule:
    def latest() -> datetime:
        return _LATEST if ahead is None else datetime.now(UTC) + ahead

    def parse(value: Any) -> datetime:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if not isinstance(value, datetime):
            raise ValueError(f"must be a datetime, is {_shown(value)}: convert an epoch first, its unit is ambiguous")
        if value.utcoffset() is None:
            raise ValueError(f"must be aware, {value} has no time zone: give it tzinfo=UTC")
        if value < _EARLIEST:
            raise ValueError(f"{value} is before 1971: were seconds read as milliseconds?")
        if value > latest():
            raise ValueError(f"{value} is too far in the future: were milliseconds read as seconds?")
        # pandas' subclass has nanoseconds: two of one microsecond would be two keys.
        utc = value.astimezone(UTC)
        return datetime(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, UTC)

    def fits(column: Sequence[Any]) -> bool:
        # In other zones two datetimes can be one instant and yet differ: in the hour that clocks repeat.
        if not _all_are(datetime, column) or list(map(_TZINFO, column)).count(UTC) < len(column):
            return False
        return not column or (min(column) >= _EARLIEST and max(column) <= latest())

    return Rule(fits, parse)


def _string(phrase: str, normal: Callable[[str], str], pattern: str | None = None) -> Rule:
    whole = None if pattern is None else re.compile(pattern)

    def is_sound(value: str) -> bool:
        shape = value.strip() if whole is None else whole.fullmatch(value)
        # PostgreSQL's texts cannot hold a lone surrogate or a NUL.
        return bool(shape) and (value.isascii() or not _SURROGATES.search(value)) and "\x00" not in value

    def parse(value: Any) -> str:
        plain = value.value if isinstance(value, Enum) else value
        if isinstance(plain, bool) or not isinstance(plain, str | int) or not is_sound(normal(str(plain))):
            raise ValueError(f"must be {phrase}, is {_shown(value)}")
        return normal(str(plain))

    def fits(column: Sequence[Any]) -> bool:
        return _all_are(str, column) and all(normal(value) == value and is_sound(value) for value in set(column))

    return Rule(fits, parse)


def choice(options: type[StrEnum]) -> Rule:
    """Return the rule of a field that holds a value of the enum; letter case does not matter."""
    members = {member.value.lower(): member for member in options}
    accepted = set(options)

    def parse(value: Any) -> StrEnum:
        plain = value.value if isinstance(value, Enum) else value
        try:
            return members[plain.lower()]
        except (AttributeError, KeyError):
            raise ValueError(f"must be one of {', '.join(options)}, is {_shown(value)}") from None

    return Rule(lambda column: _all_are(options, column) and accepted.issuperset(column), parse)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, is {_shown(value)}")
    return value


def _is_storable(value: Decimal) -> bool:
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -1_000 and value.adjusted() < 60


def _spelled(value: str) -> str:
    """Return a timeframe in its one spelling: 1h for 60m, 1d for 24h, 1w for 7d."""
    value = value.strip()
    found = None if value.endswith("M") else _LENGTH.fullmatch(value.lower())  # 1M is a month, 1m a minute
    if found is None:
        return value
    seconds = int(found[1]) * _SECONDS[found[2]]
    unit = next(unit for unit, length in _SECONDS.items() if not seconds % length)
    return f"{seconds // _SECONDS[unit]}{unit}"


def in_utc(moment: datetime, field: str) -> datetime:
    """Return an aware datetime in UTC; raise ValidationError, which names `field`, for anything else.

    Wall clocks repeat an hour, and Python compares two datetimes of one zone without their offsets.
    """
    if not isinstance(moment, datetime):
        raise ValidationError(f"must be a datetime, is {moment!r}", field=field)
    if moment.utcoffset() is None:
        raise ValidationError(f"must be aware, {moment} has no time zone: give it tzinfo=UTC", field=field)
    try:
        return moment.astimezone(UTC)
    except OverflowError:  # within a day of the years 1 or 9999
        return moment.replace(tzinfo=UTC)


def ago(age: timedelta, end: datetime | None = None) -> datetime:
    """Return the moment `age` before `end` (default: now), but never one before the year 1."""
    try:
        return (end or datetime.now(UTC)) - age
    except OverflowError:
        return BEGINNING


positive = _bounded(float, "> 0 and finite", lambda value: 0 < value < _INFINITY)
not_negative = _bounded(float, ">= 0 and finite", lambda value: 0 <= value < _INFINITY)
finite = _bounded(float, "finite", lambda value: -_INFINITY < value < _INFINITY)
imbalance = _bounded(float, "from -1 to 1", lambda value: -1 <= value <= 1)
# Far inside what PostgreSQL's numeric holds: 131,072 digits before the point and 16,383 after it.
decimal = _bounded(Decimal, "finite, of at most 60 digits before the point and 1,000 after it", _is_storable)
amount = _bounded(Decimal, ">= 0 and finite", lambda value: decimal.fits([value]) and value >= 0)
positive_decimal = _bounded(Decimal, "> 0 and finite", lambda value: decimal.fits([value]) and value > 0)
identifier = _integer(1, 2**31 - 1)
small_identifier = _integer(1, 2**15 - 1)
count = _integer(0, 2**63 - 1)
timestamp = _moment(timedelta(days=1))
instant = _moment(None)
flag = Rule(lambda column: _all_are(bool, column), _flag)
text = _string("a text that is not blank", str)
# In a key: PostgreSQL's index entries hold some 2,700 bytes.
name = _string("a text of at most 200 characters that is not blank", str, r"(?s)(?=.*\S).{1,200}")
ticker = _string("a ticker such as BTC, without blanks", lambda value: value.strip().upper(), r"\S{1,200}")
timeframe = _string("a count and a unit of s, m, h, d, w or M, such as 1m", _spelled, r"[1-9][0-9]{0,3}[smhdwM]")
