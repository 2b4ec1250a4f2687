"""The commands of `arbstore`, and the options that all of them take."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from arbstore.cli import demo, failures, ingest, schema, series, status, symbols, sync, upkeep
from arbstore.cli.command import Options, guarded

_FLAGS = ("--json", "--debug")
_ALSO = "Also takes --database URL, --json and --debug: see `arbstore --help`."
_CODES = "\n".join(f"{code:>4}  {meaning}" for code, meaning in failures.MEANINGS.items())


class _Root(TyperGroup):
    """Takes its own options after the command too: nobody remembers which side of it they belong on."""

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
                raise typer.BadParameter("wants a URL", param_hint=word)
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
    epilog=f"\b\nExit codes:\n{_CODES}",  # \b: these lines are not filled up
)
db = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Deploy the schema, look at it, and remove what is old."
)

_COMMANDS: dict[typer.Typer, tuple[Callable[..., None], ...]] = {
    app: (demo.demo, ingest.ingest, series.latest, series.history, symbols.symbols),
    db: (schema.upgrade, schema.current, status.status, sync.sync, upkeep.stats, upkeep.retention, upkeep.cleanup),
}
for group, functions in _COMMANDS.items():
    for function in functions:
        group.command(epilog=_ALSO)(guarded(function))
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
            help="postgresql://user@host:5432/name, or embedded: (embedded:/path), which needs no server. Without it:"
            " ARBSTORE_DATABASE_URL or POSTGRES_HOST and its kin, from the environment or .env; without those the"
            " embedded one. Passwords belong there, not here, where every user of the machine can read them.",
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="One JSON document on stdout, and nothing else: decimals are strings, times ISO 8601 in UTC.",
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of what fails.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Store and look at what crypto exchanges say: quotes, trades, funding, balances and candles.

    `arbstore demo` shows it at work. These options stand before the command or after it.
    """
    logging.getLogger("stamina").setLevel(logging.ERROR)  # retries are no news: what comes of them is
    context.obj = Options(database, json, debug)
