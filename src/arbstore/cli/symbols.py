"""`arbstore symbols`: what is registered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from arbstore.cli import show
from arbstore.cli.command import options_of, run, settings_of

if TYPE_CHECKING:
    from arbstore.database import Database


def symbols(
    context: typer.Context,
    exchange: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of this exchange only, such as BINANCE_SPOT.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Those that are not active any more, too.")] = False,
) -> None:
    """List the registered symbols."""
    options = options_of(context)
    found = run(settings_of(options), lambda db: _symbols(db, exchange, active_only=not every))
    if options.json:
        show.print_json(found)
    elif found:
        show.print_people(show.table(map(_row, found)))
    else:
        show.print_people("no symbols are registered")


async def _symbols(db: Database, exchange: str | None, *, active_only: bool) -> list[dict[str, Any]]:
    async with db.begin() as store:
        if exchange is None:
            owners = await store.exchanges.all(active_only=active_only)
        else:
            owners = (await store.exchanges.by_enum_one(exchange),)
        return [
            {"exchange": owner.enum_value} | msgspec.structs.asdict(symbol)
            for owner in owners
            for symbol in await store.symbols.by_exchange(owner.id, active_only=active_only)
        ]


def _row(symbol: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": str(symbol["id"]),  # a name, not a count: without separators
        "exchange": symbol["exchange"],
        "pair": show.pair(symbol["symbol_base"], symbol["symbol_quote"]),
        "its name there": symbol["exchange_symbol"],
        "type": symbol["symbol_type"],
        "expiry (UTC)": symbol["expiry"],
        "contract": symbol["contract_size"],
        "active": symbol["is_active"],
    }
