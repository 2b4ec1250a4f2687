"""What all commands share: their common options, the database they work on, their answer, and how they fail."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from arbstore import errors
from arbstore.cli import show

# Commands import what reaches a database only when they run, so that `--help` and a mistyped option are quick.
if TYPE_CHECKING:
    from rich.table import Table

    from arbstore.database import Database
    from arbstore.settings import Settings

T = TypeVar("T")

BEHIND = 1
UNREADY = 3
_UNKNOWN, _FAULT, _INTERRUPTED, _PIPE = 4, 70, 130, 141

_UNREADY = (errors.DatabaseConnectionError, errors.PoolExhaustedError, errors.SchemaOutOfDateError)
# The first entry that fits decides, so the special classes stand before the general ones.
_CODES: dict[tuple[type[BaseException], ...], int] = {
    (errors.UnknownExchangeError, errors.UnknownSymbolError): _UNKNOWN,
    (errors.ConfigurationError, *_UNREADY): UNREADY,
    (BrokenPipeError,): _PIPE,
    (errors.ArbstoreError, OSError): 1,
    (KeyboardInterrupt,): _INTERRUPTED,
    (Exception,): _FAULT,
}

# Each line fits the 80 columns of `arbstore --help`.
MEANINGS = {
    0: "done",
    1: "it failed or was refused; `db current`, `db align`: more is left to do",
    2: "wrong use: an unknown option, or a value that cannot be read",
    UNREADY: "a wrong setting, no database, or a schema that is not deployed",
    _UNKNOWN: "an exchange or symbol that is not registered",
    _FAULT: "a bug in arbstore",
    _INTERRUPTED: "interrupted (Ctrl-C)",
    _PIPE: "the reader of the output has gone",
}

# Python parameters that have several options; every other option has the name of its parameter.
_SEVERAL = {"expired": "--keep or --anyway"}


@dataclass(frozen=True, slots=True)
class Options:
    """The options that every command takes, before its name or after it."""

    database: str | None = None
    json: bool = False
    debug: bool = False


def options_of(context: typer.Context) -> Options:
    """Return the common options of this run."""
    found: Options = context.find_root().obj
    return found


def flags_of(context: typer.Context) -> dict[str, str]:
    """Return the command's own options by the name of their Python parameter, such as window_seconds: --window."""
    flags = {param.name or "": param.opts[0] for param in context.command.params}
    return {name: flag for name, flag in flags.items() if flag.startswith("--")}


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """Return the command, whose first parameter is `context`, with its failures reported."""

    @wraps(function)
    def call(context: typer.Context, **given: Any) -> None:
        with reported(debug=options_of(context).debug, flags=flags_of(context)):
            function(context, **given)

    return call


@contextmanager
def wrong_use(hint: str | None = None) -> Iterator[None]:
    """Report a value that is refused inside the block as wrong use of the option or argument `hint`."""
    try:
        yield
    except (ValueError, errors.ConfigurationError) as error:
        raise typer.BadParameter(str(error), param_hint=hint) from error


def option(
    metavar: str | None, explained: str, *flags: str, read: Callable[[str], Any] | None = None, **more: Any
) -> Any:
    """Return an option of typer; its text is converted by `read`, whose ValueError is reported as wrong use."""
    return typer.Option(*flags, metavar=metavar, help=explained, parser=read and parsed(read), **more)


def parsed(read: Callable[[str], T]) -> Callable[[str], T]:
    """Return a reader whose ValueError typer reports with the name of the option or argument."""

    @wraps(read)
    def parse(text: str) -> T:
        with wrong_use():
            return read(text)

    return parse


def settings_of(options: Options) -> Settings:
    """Return the settings; without any that name a database, say so and use the embedded one."""
    from arbstore.settings import EMBEDDED, Settings

    settings = Settings.load() if options.database is None else Settings.load(database_url=options.database)
    try:
        settings.url  # noqa: B018 # raises if nothing names a database
    except errors.ConfigurationError:
        if settings.database_url is not None:
            raise
        typer.echo("arbstore: no database is configured: using the embedded one (embedded:)", err=True)
        return Settings.load(database_url=f"{EMBEDDED}:")
    return settings


def run(context: typer.Context, work: Callable[[Database], Awaitable[T]], settings: Settings | None = None) -> T:
    """Open the database of the settings, or else of the common options, do the work, and close the database."""
    from arbstore.database import Database

    async def opened() -> T:
        async with Database(settings=settings or settings_of(options_of(context))) as db:
            return await work(db)

    return asyncio.run(opened())


def answer(context: typer.Context, document: Any, people: Callable[[], Iterable[str | Table]]) -> None:
    """Print the document as JSON with --json, else the lines and tables for people."""
    if options_of(context).json:
        show.print_json(document)
    else:
        show.print_people(*people())


@contextmanager
def logged(*names: str, style: str = "%(message)s") -> Iterator[None]:
    """Write to stderr what these loggers say inside the block, in UTC if `style` asks for the time."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter := logging.Formatter(style, "%Y-%m-%dT%H:%M:%S"))
    formatter.converter = time.gmtime
    # At each start, Alembic also describes the database.
    handler.addFilter(lambda record: "alembic.runtime" not in record.name or record.msg.startswith("Running"))
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.removeHandler(handler)
            logger.setLevel(level)


@contextmanager
def reported(*, debug: bool, flags: dict[str, str]) -> Iterator[None]:
    """Turn an error inside the block into one line on stderr and an exit code; `debug` adds the traceback."""
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise  # typer reports them itself
    except (Exception, KeyboardInterrupt) as error:
        code = next(code for kinds, code in _CODES.items() if isinstance(error, kinds))
        if debug:
            traceback.print_exc()
        if code == _PIPE:
            # Nobody reads stdout any more: Python's last flush must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            typer.echo(f"arbstore: {_message(error, code)}{_hint(error, flags)}", err=True)
        raise typer.Exit(code) from error


def _message(error: BaseException, code: int) -> str:
    text = str(error) or type(error).__name__
    if code == _INTERRUPTED:
        text = "interrupted"
    elif code == _FAULT:
        text = f"a bug: {type(error).__name__}: {error} (--debug shows where)"
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def _hint(error: BaseException, flags: dict[str, str]) -> str:
    """Name the option that sets the parameter of which the library's error speaks."""
    parameter = getattr(error, "parameter", None)
    flag = _SEVERAL.get(parameter) or flags.get(parameter) if parameter is not None else None
    return "" if flag is None else f" (on the command line: {flag})"
