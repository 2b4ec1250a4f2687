"""The results of a run, kept as one small file for each edition of the server, and their comparison."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import msgspec

from benchmarks.measure import Aspect, Figure, Timing

CHECKOUT = Path(__file__).parents[1]
FOLDER = CHECKOUT / "benchmarks" / "results"
EDITIONS = ("plain", "apache", "community")
TOLERANCE = 0.2  # how much worse than the kept one a ratio may be
_LIBRARIES = ("asyncpg", "sqlalchemy", "msgspec", "cachetools", "advanced-alchemy", "pyarrow", "polars")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A figure as it is kept: the ratio of the medians, its bound, and the lowest and highest ratio of a round."""

    figure: str
    against: str
    aspect: Aspect
    bound: float | None
    ratio: float
    lowest: float
    highest: float
    measured: str
    note: str

    @classmethod
    def of(cls, figure: Figure) -> Result:
        """Return the result of a figure."""
        lowest, highest = figure.spread
        return cls(
            figure=figure.name,
            against=figure.theirs.name,
            aspect=figure.aspect,
            bound=figure.bound,
            ratio=round(figure.ratio, 5),
            lowest=round(lowest, 5),
            highest=round(highest, 5),
            measured=f"{_pace(figure, figure.ours)} : {_pace(figure, figure.theirs)}",
            note=figure.note,
        )

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the figure in every run."""
        return self.figure, self.against

    @property
    def met(self) -> bool | None:
        """Whether the bound is kept, or None for a figure without a bound."""
        if self.bound is None:
            return None
        return self.ratio >= self.bound if self.aspect is Aspect.SPEED else self.ratio <= self.bound

    def is_worse_than(self, kept: Result) -> bool:
        """Whether the ratio is worse than the kept one by more than the tolerance."""
        if self.aspect is Aspect.SPEED:
            return self.ratio < kept.ratio * (1 - TOLERANCE)
        return self.ratio > kept.ratio * (1 + TOLERANCE)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The results of all figures on one server, and what they were measured on."""

    edition: str
    server: str
    settings: str
    machine: str
    load: str
    date: str
    commit: str
    versions: str
    results: list[Result]

    @classmethod
    def read(cls, path: Path) -> Run:
        """Return the run that `write` has written."""
        return msgspec.json.decode(path.read_bytes(), type=cls)

    def write(self, path: Path) -> None:
        """Write the run, with a line for each figure."""
        path.parent.mkdir(parents=True, exist_ok=True)
        head = msgspec.json.encode(msgspec.structs.replace(self, results=[])).decode().removesuffix("]}")
        rows = ",\n".join(msgspec.json.encode(result).decode() for result in self.results)
        path.write_text(f"{head}\n{rows}\n]}}\n")

    @property
    def heading(self) -> str:
        """The server, its settings, the machine and the date, in a line."""
        return f"{self.server}; {self.settings}; {self.machine}, load {self.load} before; {self.date}, {self.commit}"


def describe(server: dict[str, str], load: float, figures: Sequence[Figure]) -> Run:
    """Return the run of these figures; `server` is what `Server.describe` returns."""
    extension = f", TimescaleDB {server['timescaledb']} ({server['edition']})" if server["timescaledb"] else ""
    return Run(
        edition=server["edition"],
        server=f"PostgreSQL {server['postgresql'].partition(' ')[0]}{extension}",
        settings=f"fsync {server['fsync']}, synchronous_commit {server['synchronous_commit']}",
        machine=f"{_processor()}, {os.cpu_count()} cores, {_memory()}",
        load=f"{load:.1f}",
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        commit=_commit(),
        versions=f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES),
        results=[Result.of(figure) for figure in figures],
    )


def kept(edition: str) -> Run | None:
    """Return the kept run of an edition, or None if there is none."""
    path = FOLDER / f"{edition}.json"
    return Run.read(path) if path.exists() else None


def worse(run: Run, before: Run) -> list[tuple[Result, Result]]:
    """Return each result of the run that is worse than in the run before, with that one."""
    known = {result.key: result for result in before.results}
    pairs = [(result, known[result.key]) for result in run.results if result.key in known]
    return [(result, old) for result, old in pairs if result.is_worse_than(old)]


def _pace(figure: Figure, timing: Timing) -> str:
    """Return the median as a rate, if the figure is a speed of many units, or else as a time."""
    seconds = timing.per_unit
    if figure.aspect is Aspect.SPEED and timing.units > 1:
        return f"{1 / seconds:,.0f}/s"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def _commit() -> str:
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 # a constant
    except (OSError, subprocess.CalledProcessError):
        return "unknown commit"
    return done.stdout.strip()


def _processor() -> str:
    return _value("/proc/cpuinfo", "model name") or platform.processor() or "unknown processor"


def _memory() -> str:
    kilobytes = _value("/proc/meminfo", "MemTotal").removesuffix(" kB")
    return f"{int(kilobytes) / 2**20:.0f} GiB" if kilobytes else "unknown memory"


def _value(file: str, name: str) -> str:
    path = Path(file)
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
