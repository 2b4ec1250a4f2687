"""The pages that quote the last run of each edition, between markers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import report

CHECKOUT = Path(__file__).parents[1]
BEGIN = "<!-- figures: written by `python -m benchmarks --write-docs` -->"
END = "<!-- end of figures -->"
_RESULTS = CHECKOUT / "benchmarks" / "results"
_EDITIONS = ("plain", "apache", "community")

PAGES: dict[Path, Callable[[Sequence[report.Run]], str]] = {
    CHECKOUT / "docs" / "performance.md": report.tables,
    CHECKOUT / "README.md": report.summary,
}


def keep(run: report.Run) -> None:
    """Keep the run as the last one of its edition, and quote all of those."""
    run.write(_RESULTS / f"{run.edition}.json")
    for page in PAGES:
        page.write_text(quoted(page))


def quoted(page: Path) -> str:
    """Return the page's text with the figures of the last runs between its markers, if it has them."""
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n{PAGES[page](last_runs())}\n{end}{after}" if end else text


def last_runs() -> list[report.Run]:
    """Return the last run of each edition that was measured."""
    paths = [_RESULTS / f"{edition}.json" for edition in _EDITIONS]
    return [report.Run.read(path) for path in paths if path.exists()]
