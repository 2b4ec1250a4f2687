"""A run's figures, on the terminal, as JSON, and as the tables that the pages quote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.figures import Aspect, Figure
from benchmarks.measure import Timing

_MARKS = {True: "met", False: "MISSED", None: ""}
_HEADINGS = ("figure", "against", "asked", "measured", "lowest to highest round", "")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, on what, with how much."""

    date: str
    machine: dict[str, str]
    server: dict[str, str]
    versions: dict[str, str]
    sizes: dict[str, int]
    figures: list[Figure]

    @classmethod
    def read(cls, path: Path) -> Run:
        """Return the run that `write` has written."""
        return msgspec.json.decode(path.read_bytes(), type=cls)

    def write(self, path: Path) -> None:
        """Write all there is, the seconds of every round included."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = msgspec.json.format(msgspec.json.encode(self), indent=1)
        path.write_bytes(text + b"\n")

    @property
    def edition(self) -> str:
        """The server's edition: plain, apache or community."""
        return self.server["edition"]

    @property
    def place(self) -> str:
        """The server's name and version."""
        release = self.server["postgresql"].partition(" ")[0]
        extension = "" if self.edition == "plain" else f", TimescaleDB {self.server['timescaledb']} ({self.edition})"
        return f"PostgreSQL {release}{extension}"

    @property
    def heading(self) -> str:
        """What this ran on, in a line."""
        server, machine = self.server, self.machine
        return (
            f"{self.place}; fsync {server['fsync']},"
            f" synchronous_commit {server['synchronous_commit']}; {machine['processor']}, {machine['cores']} cores,"
            f" {machine['memory']}, load {machine['load']} before; {self.date}"
        )


def show(run: Run, console: Console) -> None:
    """Print the table."""
    table = Table(*_HEADINGS, title=run.heading, title_justify="left")
    for row in _rows(run.figures):
        table.add_row(*map(escape, row), style="bold red" if row[-1].startswith("MISSED") else None)
    console.print(table)
    missed = [figure for figure in run.figures if figure.met is False]
    asked = [figure for figure in run.figures if figure.met is not None]
    console.print(f"{len(asked) - len(missed)} of {len(asked)} bounds are met")


def tables(runs: Sequence[Run]) -> str:
    """Return a table of all figures for each run."""
    return "\n\n".join(f"{run.heading}\n\n{_markdown(_HEADINGS, _rows(run.figures))}" for run in runs)


def summary(runs: Sequence[Run]) -> str:
    """Return one table of the figures that have a bound, with a column for each run."""
    asked = dict.fromkeys(_key(figure) for run in runs for figure in run.figures if figure.bound is not None)
    measured = [{_key(figure): _times(figure) for figure in run.figures} for run in runs]
    rows = [(*key, *(of_run.get(key, "") for of_run in measured)) for key in asked]
    return _markdown(("figure", "against", *(run.place for run in runs)), rows)


def _key(figure: Figure) -> tuple[str, str]:
    return figure.name, figure.theirs.name


def _markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rows(figures: list[Figure]) -> Iterator[tuple[str, ...]]:
    for figure in figures:
        lowest, highest = figure.spread
        yield (
            figure.name,
            figure.theirs.name,
            "" if figure.bound is None else f"{_asked(figure)} {_number(figure.bound)} {_unit(figure)}",
            f"{_times(figure)} ({_pace(figure, figure.ours)} : {_pace(figure, figure.theirs)})",
            f"{_number(lowest)} to {_number(highest)}",
            "; ".join(filter(None, (_MARKS[figure.met], figure.note))),
        )


def _asked(figure: Figure) -> str:
    return "≥" if figure.aspect is Aspect.SPEED else "≤"


def _unit(figure: Figure) -> str:
    return "x" if figure.aspect is Aspect.SPEED else "x the time"


def _times(figure: Figure) -> str:
    return f"{_number(figure.ratio)} {_unit(figure)}"


def _number(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 20 else f"{ratio:.2g}" if ratio >= 10 else f"{ratio:.2f}"


def _pace(figure: Figure, timing: Timing) -> str:
    """Say the median, as a rate where it is the speed of many that is measured."""
    seconds = timing.per_unit
    if figure.aspect is Aspect.SPEED and timing.units > 1:
        return f"{1 / seconds:,.0f}/s"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"
