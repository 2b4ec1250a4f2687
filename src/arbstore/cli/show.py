"""What commands print: one JSON document for programs, tables for people."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from arbstore.cli.times import show_duration, show_moment

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

_ENDLESS = 100_000  # columns: a table is never cut or folded; a narrow terminal wraps its lines


def print_json(value: Any) -> None:
    """Write one JSON document: decimals are strings, times ISO 8601 in UTC, durations ISO 8601."""
    text = msgspec.json.format(msgspec.json.encode(_plain(value)), indent=2)
    sys.stdout.write(text.decode() + "\n")
    sys.stdout.flush()  # a reader that has gone is noticed here, not at the interpreter's end


def _plain(value: Any) -> Any:
    """Return the value with the fields of NamedTuples by name: msgspec would write arrays."""
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
        return str.__str__(str(value))  # without what SQLAlchemy adds to the names of tables
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def print_people(*parts: str | Table) -> None:
    """Write lines and tables, with an empty line on either side of a table."""
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


def table(rows: Iterable[Mapping[str, Any]], title: str | None = None, right: Sequence[str] = ()) -> Table:
    """Return a table of the rows, whose keys are the headers; a column without a value is left out.

    Numbers, and the columns of `right`, stand right.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = list(rows)
    filled = [header for header in (found[0] if found else ()) if any(row[header] is not None for row in found)]
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False)
    made.padding, made.pad_edge = (0, 1, 0, 0), False
    for header in filled:
        numeric = header in right or any(_is_number(row[header]) for row in found)
        made.add_column(header.replace("_", " "), justify="right" if numeric else "left", no_wrap=True)
    for row in found:
        made.add_row(*(Text(cell(row[header])) for header in filled))
    return made


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def cell(value: Any) -> str:
    """Return the value as people read it; no digit of a number is lost."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float() | Decimal():
            return format(Decimal(str(value)), "f")
        case datetime():
            return show_moment(value)
        case timedelta():
            return show_duration(value)
    return str(value)


def pair(base: str, quote: str) -> str:
    """Return the pair as people write it."""
    return f"{base}/{quote}"


def size(count: int) -> str:
    """Return bytes in the unit that leaves three digits."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


@contextmanager
def progress() -> Iterator[Progress]:
    """Yield bars that are drawn on stderr while it is a terminal, and are gone at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    bars = Progress(*columns, console=console, transient=True, redirect_stdout=False)
    if console.is_terminal:
        with bars:
            yield bars
    else:
        yield bars  # never started, it draws nothing
