"""How values are printed and read: JSON for programs, tables for people, times and durations for both."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_ENDLESS = 100_000  # columns: a table is never cut or folded; a narrow terminal wraps its lines
_UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}

# Headers of columns; other fields go by their own name.
_HEADERS = {
    "ask_price": "ask",
    "bid_price": "bid",
    "bytes": "size",
    "chunk_interval": "chunk",
    "contract_size": "contract",
    "exchange_symbol": "name there",
    "is_active": "active",
    "keep_for": "retention",
    "messages_per_second": "per second",
    "older_than": "removes before",
    "symbol_type": "type",
    "window_seconds": "window",
}
# What it means that a value is missing.
_ABSENT = {
    **dict.fromkeys(("retention", "keep_for", "declared"), "forever"),
    **dict.fromkeys(("computed_until", "every"), "never"),
}
_RIGHT = ("rows", "bytes", "before", "after")  # texts that are numbers


def read_duration(text: str) -> timedelta:
    """Return the duration of a text such as 3d, 12h, 30m, 5s or 1.5h; raise ValueError for any other text."""
    parts = re.fullmatch(rf"(\d+(?:\.\d+)?)\s*({'|'.join(_UNITS)})", text.strip())
    try:
        length = float(parts[1]) * _UNITS[parts[2]] if parts else timedelta(0)
    except OverflowError:
        length = timedelta(0)
    if length <= timedelta(0):
        raise ValueError(f"{text!r} is not a duration: write it like 3d, 12h, 30m or 5s")
    return length


def read_offset(text: str) -> timedelta:
    """Return the offset from UTC of a text such as +03:00, -5 or Z; raise ValueError for any other text."""
    parts = re.fullmatch(r"([+-])(\d{1,2})(?::?([0-5]\d))?", text.strip())
    if text.strip().upper() in ("Z", "UTC"):
        return timedelta(0)
    if parts is None:
        raise ValueError(f"{text!r} is not an offset from UTC: write it like +03:00 or -05:00")
    distance = timedelta(hours=int(parts[2]), minutes=int(parts[3] or 0))
    return -distance if parts[1] == "-" else distance


def read_moment(text: str) -> datetime:
    """Return the time of an ISO 8601 text, in UTC if it names no zone; raise ValueError for any other text."""
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is not a time: write it like 2024-08-08 or 2024-08-08T12:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def moment(value: datetime) -> str:
    """Return the time in UTC, to the millisecond, or to the microsecond if it has any."""
    precision = "microseconds" if value.microsecond % 1000 else "milliseconds"
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", precision)


def minute(value: datetime) -> str:
    """Return the time in UTC, to the minute."""
    return moment(value)[:16]


def time_column(moments: Iterable[datetime]) -> tuple[str, list[str]]:
    """Return a column's header and cells; if all times share a date, it goes into the header."""
    shown = [moment(one) for one in moments]
    days = {text[:10] for text in shown}
    return (f"{days.pop()} UTC", [text[11:] for text in shown]) if len(days) == 1 else ("time (UTC)", shown)


def duration(value: timedelta) -> str:
    """Return the duration as a whole number of the largest possible unit, up to days."""
    for unit in ("d", "h", "m", "s"):
        if value and value % _UNITS[unit] == timedelta(0):
            return f"{value // _UNITS[unit]}{unit}"
    return f"{value / _UNITS['ms']:g}ms"


def pair(base: str, quote: str) -> str:
    """Return the pair as people write it."""
    return f"{base}/{quote}"


def size(count: int) -> str:
    """Return a number of bytes in the unit that leaves three digits."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def print_json(value: Any) -> None:
    """Write one JSON document: decimals are strings, times ISO 8601 in UTC, durations ISO 8601."""
    text = msgspec.json.format(msgspec.json.encode(_plain(value)), indent=2)
    sys.stdout.write(text.decode() + "\n")
    sys.stdout.flush()  # so that a reader who has gone is noticed here, not when the interpreter exits


def _plain(value: Any) -> Any:
    """Return the value with fields by name: msgspec would write a NamedTuple as an array."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    elif isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    elif dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str | Path):
        return str.__str__(str(value))  # SQLAlchemy's names of tables are a subclass of str
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def print_people(*parts: str | Table) -> None:
    """Write lines and tables, with an empty line before and after a table."""
    out = _console()
    for number, part in enumerate(parts):
        if number and not (isinstance(part, str) and isinstance(parts[number - 1], str)):
            out.print()
        out.print(part, markup=False, highlight=False)


def _console() -> Console:
    from rich.console import Console

    class Strict(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich calls this while it handles a BrokenPipeError, and would exit with 1

    return Strict(width=_ENDLESS, emoji=False)


def table(rows: Iterable[Any], *columns: str, title: str | None = None) -> Table:
    """Return a table of records or mappings: their fields of these names, or all keys of mappings.

    A column without any value is left out. Times are in UTC, to the minute.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = [row if isinstance(row, Mapping) else {name: getattr(row, name) for name in columns} for row in rows]
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False)
    made.padding, made.pad_edge = (0, 1, 0, 0), False
    filled = []
    for name in columns or (found[0] if found else ()):
        values = [row[name] for row in found]
        if name in _ABSENT or any(value is not None for value in values):
            zone = " (UTC)" if any(isinstance(value, datetime) for value in values) else ""
            right = name in _RIGHT or any(map(_is_number, values))
            header = _HEADERS.get(name, name.replace("_", " ")) + zone
            made.add_column(header, justify="right" if right else "left", no_wrap=True)
            filled.append(name)
    for row in found:
        made.add_row(*(Text(_ABSENT.get(name, "") if row[name] is None else cell(row[name])) for name in filled))
    return made


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def cell(value: Any) -> str:
    """Return the value as people read it; numbers keep all their digits."""
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float() | Decimal():
            return format(Decimal(str(value)), "f")
        case datetime():
            return minute(value)
        case timedelta():
            return duration(value)
    return str(value)


@contextmanager
def progress() -> Iterator[Callable[..., None]]:
    """Yield what shows how far works have come: `update(name, text="", done=None, of=None)`.

    Each name has a line. They are drawn on stderr if that is a terminal, and disappear at the end.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    display = Progress(*columns, console=console, transient=True, redirect_stdout=False)
    tasks: dict[str, TaskID] = {}

    def update(name: str, text: str = "", done: int | None = None, of: int | None = None) -> None:
        if name not in tasks:
            tasks[name] = display.add_task(name, total=None)
        display.update(tasks[name], description=name + text, completed=done, total=of)

    with display if console.is_terminal else nullcontext():  # without a start it draws nothing
        yield update
