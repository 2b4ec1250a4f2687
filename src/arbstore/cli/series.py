"""`arbstore latest`, `history` and `symbols`: shows what is stored of a market, an account or a collector."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from arbstore.cli import show
from arbstore.cli.command import answer, flags_of, option, parsed, run
from arbstore.kinds import BOOK_TICKERS, KINDS, Kind
from arbstore.records import BookTicker, Origin, Snapshot

if TYPE_CHECKING:
    from arbstore.database import Database, Store
    from arbstore.frames.parquet import Export

_ROWS = 20
# Columns that repeat the first ones of a table, or that nobody reads.
_IDS = ("symbol_id", "exchange_id", "buy_exchange_id")
_SYMBOL = ("id", "exchange", "pair", "exchange_symbol", "symbol_type", "expiry", "contract_size", "is_active")
_HIDDEN = frozenset((*_IDS, "timestamp", "created_at", "symbol_base", "symbol_quote", "exchange_symbol"))


def read_kind(text: str) -> str:
    """Return the name of the kind, whose case and hyphens do not matter; raise ValueError for an unknown one."""
    if (name := text.lower().replace("-", "_")) not in KINDS:
        raise ValueError(f"{text!r} is not a kind of rows: use one of {', '.join(KINDS)}")
    return name


_Timeframe = Annotated[str | None, option("LENGTH", "For candles: their length, such as 1m.")]
_Window = Annotated[int | None, option("SECONDS", "For order_flow: the length of windows.", "--window")]
_Since = Annotated[
    datetime | None, option("TIME", "From this time on: ISO 8601, UTC by default.", read=show.read_moment)
]
_Until = Annotated[datetime | None, option("TIME", "Before this time, written like --since.", read=show.read_moment)]
_MaxAge = Annotated[timedelta | None, option("DURATION", "Leave out older rows: 5s, 30m, 3d.", read=show.read_duration)]
_Kind = Annotated[str, typer.Argument(metavar="KIND", parser=parsed(read_kind), help="What to show.")]
_SERIES = "EXCHANGE BASE QUOTE; for balances EXCHANGE ASSET, for collectors EXCHANGE COLLECTOR."
_ORIGIN = "For candles: as delivered (feed by default, mark, index, mid), or made here of trades or quotes."


def latest(
    context: typer.Context,
    kind: _Kind = "book_tickers",
    exchange: Annotated[str | None, option("NAME", "An exchange, such as BINANCE_SPOT.")] = None,
    base: Annotated[str | None, option("ASSET", "The asset that is traded, such as BTC.")] = None,
    quote: Annotated[str | None, option("ASSET", "The asset of the price, such as USDT.")] = None,
    timeframe: _Timeframe = None,
    window_seconds: _Window = None,
    asset: Annotated[str | None, option("ASSET", "For balances: the asset.")] = None,
    collector: Annotated[str | None, option("NAME", "For collectors: its name.")] = None,
    max_age: _MaxAge = None,
) -> None:
    """Show the newest row of each series.

    KIND is one of book_tickers (the default), trades, funding_rates, balances, ticks, candles, opportunities,
    order_flow and collectors.
    """
    of = KINDS[kind]
    parts = {"timeframe": timeframe, "window_seconds": window_seconds, "asset": asset, "collector": collector}
    filters = _given(context, of, exchange=exchange, base=base, quote=quote, **parts)
    _show(context, of, lambda store: store.series(of).latest(**filters, max_age=max_age))


def history(
    context: typer.Context,
    series: Annotated[list[str] | None, typer.Argument(metavar="[KIND] SERIES", help=_SERIES)] = None,
    symbol_id: Annotated[int | None, option("ID", "Instead of the series: an id of `arbstore symbols --all`.")] = None,
    since: _Since = None,
    until: _Until = None,
    limit: Annotated[int | None, option("N", "Only the newest N rows; default 20, with --out all.", min=1)] = None,
    timeframe: _Timeframe = None,
    origin: Annotated[Origin | None, option(None, _ORIGIN, case_sensitive=False)] = None,
    window_seconds: _Window = None,
    sell_exchange: Annotated[str | None, option("NAME", "For opportunities: the exchange to sell on.")] = None,
    out: Annotated[Path | None, option("FILE", "Write to this Parquet file (.parquet).", dir_okay=False)] = None,
    force: Annotated[bool, option(None, "With --out: replace an existing file.", "--force")] = False,
    floats: Annotated[bool, option(None, "With --out: float64 instead of exact decimals.", "--floats")] = False,
) -> None:
    """Show the rows of one series, oldest first.

    KIND is book_tickers unless the first word is another kind: see `arbstore latest --help`.

    \b
    arbstore history BINANCE_SPOT BTC USDT --since 2024-08-08
    arbstore history candles BINANCE_SPOT BTC USDT --timeframe 1m
    arbstore history candles BINANCE_SPOT BTC USDT --timeframe 4h --origin trades
    arbstore history balances BINANCE_SPOT USDT --limit 5
    arbstore history BINANCE_SPOT BTC USDT --since 2024-08-08 --out btc.parquet
    arbstore history trades --symbol-id 5
    """
    kind, words = _split(series or [])
    given = _given(context, kind, timeframe=timeframe, window_seconds=window_seconds, sell_exchange=sell_exchange)
    window: dict[str, Any] = {"since": since, "until": until, **_given(context, kind, origin=origin)}
    if symbol_id is None:
        read, key = "history", _key(context, kind, words, given)
    elif not kind.of_symbols:
        raise typer.BadParameter(f"{kind.name} belong to an exchange, not to a symbol", param_hint="--symbol-id")
    elif words:
        reason = f"replaces EXCHANGE BASE QUOTE, so only a kind may stand before it, not {words[0]!r}"
        raise typer.BadParameter(reason, param_hint="--symbol-id")
    else:
        read, key = "history_by_id", []
        window |= {"symbol_id": symbol_id, **given}
    if out is not None:
        _check_file(out, force=force)
        _export(context, out, kind, key, overwrite=force, **window, limit=limit, exact=not floats)
    elif force or floats:
        raise typer.BadParameter("goes with --out only", param_hint="--force" if force else "--floats")
    else:
        window["limit"] = limit or _ROWS
        _show(context, kind, lambda store: getattr(store.series(kind), read)(*key, **window))


def symbols(
    context: typer.Context,
    exchange: Annotated[str | None, option("NAME", "Only of this exchange, such as BINANCE_SPOT.")] = None,
    every: Annotated[bool, option(None, "Also those that are not active any more.", "--all")] = False,
) -> None:
    """List the registered symbols."""

    async def work(db: Database) -> list[dict[str, Any]]:
        async with db.begin() as store:
            one = () if exchange is None else (await store.exchanges.by_enum_one(exchange),)
            return [
                {"exchange": owner.enum_value} | msgspec.structs.asdict(symbol)
                for owner in one or await store.exchanges.all(active_only=not every)
                for symbol in await store.symbols.by_exchange(owner.id, active_only=not every)
            ]

    found = run(context, work)
    pairs = (row | {"id": str(row["id"]), "pair": show.pair(row["symbol_base"], row["symbol_quote"])} for row in found)
    answer(context, found, lambda: [show.table(pairs, *_SYMBOL) if found else "no symbols are registered"])


def _split(series: Sequence[str]) -> tuple[Kind[Any, Any], Sequence[str]]:
    """Return the kind, and the words that follow it."""
    first = series[0].lower().replace("-", "_") if series else ""
    return (KINDS[first], series[1:]) if first in KINDS else (BOOK_TICKERS, series)


def _key(context: typer.Context, kind: Kind[Any, Any], words: Sequence[str], given: Mapping[str, Any]) -> list[Any]:
    """Return what names one series to the service's `history`."""
    if len(words) + len(given) != len(kind.arguments):
        flags = flags_of(context)
        wanted = " ".join(f"{flags[name]} …" if name in flags else name.upper() for name in kind.arguments)
        raise typer.BadParameter(f"{kind.name} need {wanted}", param_hint="SERIES")
    return [*words, *given.values()]


def _given(context: typer.Context, kind: Kind[Any, Any], **options: Any) -> dict[str, Any]:
    """Return the options that were given; each must belong to the kind."""
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in (*kind.arguments, *kind.options):
            raise _has_none(kind, flags_of(context)[name])
    return given


def _has_none(kind: Kind[Any, Any], flag: str) -> typer.BadParameter:
    return typer.BadParameter(f"{kind.name} do not have one", param_hint=flag)


def _check_file(path: Path, *, force: bool) -> None:
    """Refuse, before any row is read, a file that cannot be written."""
    if path.suffix.lower() != ".parquet":
        raise typer.BadParameter(
            f"{path} will be a Parquet file: give it a name ending in .parquet", param_hint="--out"
        )
    if not path.parent.is_dir():
        raise typer.BadParameter(f"{path.parent} is not a folder", param_hint="--out")
    if path.exists() and not force:
        raise typer.BadParameter(f"{path} exists: --force replaces it", param_hint="--out")


def _export(context: typer.Context, path: Path, kind: Kind[Any, Any], key: Sequence[Any], **options: Any) -> None:
    async def work(db: Database) -> Export:
        with show.progress() as update:

            def tell(rows: int, size: int) -> None:
                update(path.name, f"  {rows:,} rows  {show.size(size)}")

            return await db.frames.export(path, kind.name, *key, progress=tell, **options)

    done = run(context, work)
    document = {"file": done.path, "rows": done.rows, "bytes": done.bytes}
    answer(context, document, lambda: [f"{done.path}: {done.rows:,} rows, {show.size(done.bytes)}"])


def _show(context: typer.Context, kind: Kind[Any, Any], read: Callable[[Store], Awaitable[list[Snapshot]]]) -> None:
    async def work(db: Database) -> tuple[list[Snapshot], dict[int, str]]:
        async with db.begin() as store:
            return await read(store), {found.id: found.enum_value for found in await store.exchanges.all()}

    rows, exchanges = run(context, work)
    if not rows:
        answer(context, rows, lambda: [f"no {kind.name.replace('_', ' ')} found"])
        return
    header, times = show.time_column(row.timestamp for row in rows)
    cells = [{header: time} | _row(row, exchanges) for row, time in zip(rows, times, strict=True)]
    answer(context, rows, lambda: [show.table(cells)])


def _row(record: Snapshot, exchanges: Mapping[int, str]) -> dict[str, Any]:
    values = msgspec.structs.asdict(record)
    row = {"exchange": values.pop("exchange")}
    if "symbol_base" in values:
        row["pair"] = show.pair(values["symbol_base"], values["symbol_quote"])
    if "sell_exchange_id" in values:
        row["sell on"] = exchanges.get(values.pop("sell_exchange_id"), "?")
    row |= {name: value for name, value in values.items() if name not in _HIDDEN}
    if isinstance(record, BookTicker):
        row["bps"] = round(record.spread_bps, 3)
    return row
