"""The list of the commands of `arbstore`, and the options that all of them take."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from arbstore.cli import demo, ingest, schema, series, upkeep
from arbstore.cli.command import MEANINGS, Options, guarded

_FLAGS = ("--json", "--debug")
_ALSO = "It also takes --database URL, --json and --debug: see `arbstore --help`."
_CODES = "\n".join(f"{code:>4}  {meaning}" for code, meaning in MEANINGS.items())


class _Root(TyperGroup):
    """Takes the common options after the command too: nobody remembers on which side they belong."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _hoisted(args))


def _hoisted(args: list[str]) -> list[str]:
    front: list[str] = []
    rest: list[str] = []
    words = iter(args)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in _FLAGS or word.startswith("--database="):
            front.append(word)
        elif word == "--database":
            if (url := next(words, None)) is None:
                raise typer.BadParameter("needs a URL", param_hint=word)
            front += [word, url]
        else:
            rest.append(word)
    return [*front, *rest]


app = typer.Typer(
    cls=_Root,
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog=f"\b\nExit codes:\n{_CODES}",  # \b keeps these lines as they are
)
db = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Deploy the schema, look at the database, and remove old rows."
)

_COMMANDS: dict[typer.Typer, tuple[Callable[..., None], ...]] = {
    app: (demo.demo, ingest.ingest, series.latest, series.history, series.symbols),
    db: (schema.upgrade, schema.current, schema.status, schema.align, upkeep.stats, upkeep.retention, upkeep.cleanup),
}
for group, functions in _COMMANDS.items():
    for function in functions:
        group.command(epilog=_ALSO)(guarded(function))
db.command(hidden=True)(guarded(schema.sync))
app.add_typer(db, name="db")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"arbstore {version('arbstore')}")
        raise typer.Exit


@app.callback()
def arbstore(
    context: typer.Context,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The database: postgresql://user@host:5432/name, or embedded: (embedded:/path), which needs no server."
            " By default, ARBSTORE_DATABASE_URL or the POSTGRES_* variables name it, in the environment or .env; else"
            " it is the embedded one. Keep passwords out of the command line, where other users can see them.",
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON document: decimals are strings, times are ISO 8601 in UTC."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Store and read crypto market data: quotes, trades, funding rates, balances and candles.

    Try `arbstore demo` first. The options below may stand before the command or after it.
    """
    logging.getLogger("stamina").setLevel(logging.ERROR)  # only the outcome of retries is of interest
    context.obj = Options(database, json, debug)
