"""Tables of the results: on the terminal, and in the pages that quote the kept runs between two markers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import runs as kept_runs
from benchmarks.measure import Aspect
from benchmarks.runs import CHECKOUT, Result, Run

BEGIN = "<!-- figures: written by `python -m benchmarks --write-docs` -->"
END = "<!-- end of figures -->"
_HEADINGS = ("figure", "against", "bound", "measured", "lowest to highest round", "")
_MARKS = {True: "met", False: "MISSED", None: ""}


def show(run: Run, console: Console) -> None:
    """Print the table of a run, and how many bounds it keeps."""
    table = Table(*_HEADINGS, title=run.heading, title_justify="left")
    for result in run.results:
        table.add_row(*map(escape, _row(result)), style="bold red" if result.met is False else None)
    console.print(table)
    bounds = [result.met for result in run.results if result.met is not None]
    console.print(f"{sum(bounds)} of {len(bounds)} bounds are met")


def show_comparison(run: Run, before: Run, console: Console) -> bool:
    """Print each figure that is worse than before, with both values; return whether one of them has a bound."""
    found = kept_runs.worse(run, before)
    for result, old in found:
        mark = "worse" if result.bound is not None else "worse (no bound, reported only)"
        console.print(
            f"{mark}: {result.figure}, against {result.against}: {_times(result)}, was {_times(old)}", soft_wrap=True
        )
    console.print(
        f"{len(found)} of {len(run.results)} figures are more than {kept_runs.TOLERANCE:.0%} worse than"
        f" on {before.date} ({before.commit})"
    )
    return any(result.bound is not None for result, _ in found)


def tables(runs: Sequence[Run]) -> str:
    """Return a Markdown table of all figures for each run."""
    return "\n\n".join(f"{run.heading}\n\n{_markdown(_HEADINGS, map(_row, run.results))}" for run in runs)


def summary(runs: Sequence[Run]) -> str:
    """Return one Markdown table of the figures that have a bound, with a column for each run."""
    keys = dict.fromkeys(result.key for run in runs for result in run.results if result.bound is not None)
    measured = [{result.key: _times(result) for result in run.results} for run in runs]
    rows = [(*key, *(of_run.get(key, "") for of_run in measured)) for key in keys]
    return _markdown(("figure", "against", *(run.server for run in runs)), rows)


PAGES: dict[Path, Callable[[Sequence[Run]], str]] = {
    CHECKOUT / "docs" / "performance.md": tables,
    CHECKOUT / "README.md": summary,
}


def write_pages() -> None:
    """Write the kept runs into the pages that quote them."""
    for page in PAGES:
        page.write_text(quoted(page))


def quoted(page: Path) -> str:
    """Return the page's text with the kept runs between its markers, if it has markers."""
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    runs = [run for edition in kept_runs.EDITIONS if (run := kept_runs.kept(edition))]
    return f"{before}{begin}\n{PAGES[page](runs)}\n{end}{after}" if end else text


def _markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(result: Result) -> tuple[str, ...]:
    sign = "≥" if result.aspect is Aspect.SPEED else "≤"
    return (
        result.figure,
        result.against,
        "" if result.bound is None else f"{sign} {_number(result.bound)} {_unit(result)}",
        f"{_times(result)} ({result.measured})",
        f"{_number(result.lowest)} to {_number(result.highest)}",
        "; ".join(filter(None, (_MARKS[result.met], result.note))),
    )


def _times(result: Result) -> str:
    return f"{_number(result.ratio)} {_unit(result)}"


def _unit(result: Result) -> str:
    return "x" if result.aspect is Aspect.SPEED else "x the time"


def _number(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 20 else f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"
