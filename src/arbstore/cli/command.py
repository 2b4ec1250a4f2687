"""What commands share: the options of the whole command line, and the database they chose."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from arbstore.cli.failures import reported
from arbstore.errors import ConfigurationError

# The commands import what reaches a database when they run: `--help` and a mistyped option wait for none of it.
if TYPE_CHECKING:
    from arbstore.database import Database
    from arbstore.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """The options that stand before the command, or anywhere after it."""

    database: str | None = None
    json: bool = False
    debug: bool = False


def options_of(context: typer.Context) -> Options:
    """Return the options that this run was started with."""
    found: Options = context.find_root().obj
    return found


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """Return the command, whose first parameter is `context`, with its failures reported."""

    @wraps(function)
    def call(context: typer.Context, **given: Any) -> None:
        with reported(debug=options_of(context).debug):
            function(context, **given)

    return call


def parsed(read: Callable[[str], T]) -> Callable[[str], T]:
    """Return the reader of an option's text, with its ValueError as typer's usage error."""

    @wraps(read)
    def parse(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    return parse


def settings_of(options: Options) -> Settings:
    """Return the settings: `--database` wins; where nothing names a database it is the embedded one, said aloud."""
    from arbstore.settings import EMBEDDED, Settings

    if options.database is not None:
        return Settings.load(database_url=options.database)
    settings = Settings.load()
    if settings.database_url is None:
        try:
            settings.url  # noqa: B018 # raises where the POSTGRES_* variables name none
        except ConfigurationError:
            typer.echo("arbstore: no database is configured, so this is the embedded one (embedded:)", err=True)
            return Settings.load(database_url=f"{EMBEDDED}:")
    return settings


def run(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """Open the database, do the work and close it, in an event loop of its own."""
    from arbstore.database import Database

    async def opened() -> T:
        async with Database(settings=settings) as db:
            return await work(db)

    return asyncio.run(opened())
