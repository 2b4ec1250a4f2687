"""`arbstore latest` and `history`: what is stored of a market, an account or a collector."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from arbstore.cli import show
from arbstore.cli.command import options_of, parsed, run, settings_of
from arbstore.cli.export import Target, export
from arbstore.cli.times import read_duration, read_moment, time_column
from arbstore.records import BookTicker, CandleSource, Snapshot

if TYPE_CHECKING:
    from arbstore.database import Database, Store


class Kind(StrEnum):
    """A kind of time series; the names are those of the services of a Store."""

    BOOK_TICKERS = "book_tickers"
    TRADES = "trades"
    FUNDING_RATES = "funding_rates"
    BALANCES = "balances"
    TICKS = "ticks"
    CANDLES = "candles"
    OPPORTUNITIES = "opportunities"
    ORDER_FLOW = "order_flow"
    COLLECTORS = "collectors"

    @property
    def key(self) -> tuple[str, ...]:
        """What names one series: the first parameters of `history`, in their order."""
        return _KEYS.get(self, _PAIR)


_PAIR = ("exchange", "base", "quote")
_KEYS = {
    Kind.BALANCES: ("exchange", "asset"),
    Kind.COLLECTORS: ("exchange", "collector"),
    Kind.CANDLES: (*_PAIR, "timeframe"),
    Kind.ORDER_FLOW: (*_PAIR, "window_seconds"),
    Kind.OPPORTUNITIES: (*_PAIR, "sell_exchange"),
}
# Of a key these are options of `history`; the others stand in a row.
_OPTIONS = {"timeframe": "--timeframe", "window_seconds": "--window", "sell_exchange": "--sell-exchange"}

_SHOWN_ROWS = 20
_SHORT = {"bid_price": "bid", "ask_price": "ask", "window_seconds": "window", "messages_per_second": "per second"}
# What the first columns say already, or nobody reads.
_IDS = ("symbol_id", "exchange_id", "buy_exchange_id")
_HIDDEN = frozenset((*_IDS, "timestamp", "created_at", "symbol_base", "symbol_quote", "exchange_symbol"))

_Timeframe = Annotated[str | None, typer.Option(metavar="LENGTH", help="Of candles: their length, such as 1m.")]
_Source = Annotated[
    CandleSource | None,
    typer.Option(
        help="Of candles: as a feed delivered them (the default), or made of our trades or quotes.",
        case_sensitive=False,
    ),
]
_Window = Annotated[int | None, typer.Option("--window", metavar="SECONDS", help="Of order_flow: the window's length.")]
_Since = Annotated[
    datetime | None,
    typer.Option(parser=parsed(read_moment), metavar="TIME", help="From this time on: ISO 8601; UTC if it names none."),
]
_Until = Annotated[
    datetime | None, typer.Option(parser=parsed(read_moment), metavar="TIME", help="Before this time; as --since.")
]
_MaxAge = Annotated[
    timedelta | None,
    typer.Option(parser=parsed(read_duration), metavar="DURATION", help="Leave out what is older: 5s, 30m, 3d."),
]


def latest(
    context: typer.Context,
    kind: Annotated[
        Kind, typer.Argument(metavar="KIND", help="What to show.", case_sensitive=False)
    ] = Kind.BOOK_TICKERS,
    exchange: Annotated[str | None, typer.Option(metavar="NAME", help="An exchange, such as BINANCE_SPOT.")] = None,
    base: Annotated[str | None, typer.Option(metavar="ASSET", help="What is traded, such as BTC.")] = None,
    quote: Annotated[str | None, typer.Option(metavar="ASSET", help="What it is priced in, such as USDT.")] = None,
    timeframe: _Timeframe = None,
    window_seconds: _Window = None,
    asset: Annotated[str | None, typer.Option(metavar="ASSET", help="Of balances: the asset.")] = None,
    collector: Annotated[str | None, typer.Option(metavar="NAME", help="Of collectors: its name.")] = None,
    max_age: _MaxAge = None,
) -> None:
    """Show the newest row of each series.

    KIND is one of book_tickers (the default), trades, funding_rates, balances, ticks, candles, opportunities,
    order_flow and collectors.
    """
    filters = _given(kind, exchange=exchange, base=base, quote=quote, asset=asset, collector=collector)
    filters |= _given(kind, timeframe=timeframe, window_seconds=window_seconds)
    _show(context, kind, lambda store: getattr(store, kind).latest(**filters, max_age=max_age))


def history(
    context: typer.Context,
    series: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SERIES",
            help="[KIND] EXCHANGE BASE QUOTE; of balances EXCHANGE ASSET, of collectors EXCHANGE COLLECTOR.",
        ),
    ] = None,
    symbol_id: Annotated[
        int | None,
        typer.Option(metavar="ID", help="In place of EXCHANGE BASE QUOTE: one that `arbstore symbols --all` lists."),
    ] = None,
    since: _Since = None,
    until: _Until = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many rows, the newest: 20, or with --out all, unless given.")
    ] = None,
    timeframe: _Timeframe = None,
    source: _Source = None,
    window_seconds: _Window = None,
    sell_exchange: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of opportunities: the exchange sold on.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write them into this Parquet file (.parquet) instead.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="With --out: replace the file if there is one.")] = False,
    floats: Annotated[
        bool, typer.Option("--floats", help="With --out: balances and funding rates as float64, not as decimals.")
    ] = False,
) -> None:
    """Show the rows of one series, oldest first, or write them into a file.

    Its kind is book_tickers unless the first word is another one, as of `latest`.

    \b
    arbstore history BINANCE_SPOT BTC USDT --since 2024-08-08
    arbstore history candles BINANCE_SPOT BTC USDT --timeframe 1m
    arbstore history candles BINANCE_SPOT BTC USDT --timeframe 4h --source trades
    arbstore history balances BINANCE_SPOT USDT --limit 5
    arbstore history BINANCE_SPOT BTC USDT --since 2024-08-08 --out btc.parquet
    arbstore history trades --symbol-id 5
    """
    kind, words = _split(series or [])
    given = _given(kind, timeframe=timeframe, window_seconds=window_seconds, sell_exchange=sell_exchange)
    if source is not None and kind is not Kind.CANDLES:
        raise _has_none(kind, "--source")
    window: dict[str, Any] = {"since": since, "until": until} | ({} if source is None else {"source": source})
    if symbol_id is None:
        read, key = "history", _key(kind, words, given)
    else:
        _check_by_id(kind, words, given)
        read, key = "history_by_id", []
        window |= {"symbol_id": symbol_id, **given}
    if out is not None:
        export(context, Target(out, force=force), kind, key, **window, limit=limit, exact=not floats)
        return
    if force or floats:
        raise typer.BadParameter("is about a file: it wants --out", param_hint="--force" if force else "--floats")
    _show(context, kind, lambda store: getattr(getattr(store, kind), read)(*key, **window, limit=limit or _SHOWN_ROWS))


def _split(series: Sequence[str]) -> tuple[Kind, Sequence[str]]:
    """Return the kind, and the words that follow it."""
    first = series[0].lower().replace("-", "_") if series else ""
    return (Kind(first), series[1:]) if first in list(Kind) else (Kind.BOOK_TICKERS, series)


def _key(kind: Kind, words: Sequence[str], given: Mapping[str, Any]) -> list[Any]:
    """Return what names one series to `history`."""
    if len(words) + len(given) != len(kind.key):
        wanted = " ".join(f"{_OPTIONS[name]} …" if name in _OPTIONS else name.upper() for name in kind.key)
        raise typer.BadParameter(f"{kind} want {wanted}", param_hint="SERIES")
    return [*words, *given.values()]


def _check_by_id(kind: Kind, words: Sequence[str], given: Mapping[str, Any]) -> None:
    """Refuse what `history_by_id` does not take beside the id: of candles alone it takes a timeframe."""
    if "base" not in kind.key:
        raise typer.BadParameter(f"{kind} are of an exchange, not of a symbol", param_hint="--symbol-id")
    if words:
        reason = f"stands in place of EXCHANGE BASE QUOTE, after a kind at most: what is {words[0]!r}?"
        raise typer.BadParameter(reason, param_hint="--symbol-id")
    for name in given:
        if kind is not Kind.CANDLES:
            raise typer.BadParameter("goes with EXCHANGE BASE QUOTE, not with --symbol-id", param_hint=_OPTIONS[name])


def _given(kind: Kind, **options: Any) -> dict[str, Any]:
    """Return the options that were given; each must be one of the kind's."""
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in kind.key:
            raise _has_none(kind, _OPTIONS.get(name, f"--{name}"))
    return given


def _has_none(kind: Kind, flag: str) -> typer.BadParameter:
    return typer.BadParameter(f"{kind.replace('_', ' ')} have none", param_hint=flag)


def _show(context: typer.Context, kind: Kind, read: Callable[[Store], Awaitable[list[Snapshot]]]) -> None:
    options = options_of(context)

    async def work(db: Database) -> tuple[list[Snapshot], dict[int, str]]:
        async with db.begin() as store:
            return await read(store), {found.id: found.enum_value for found in await store.exchanges.all()}

    rows, exchanges = run(settings_of(options), work)
    if options.json:
        show.print_json(rows)
    elif rows:
        header, times = time_column(row.timestamp for row in rows)
        cells = [{header: time} | _row(row, exchanges) for row, time in zip(rows, times, strict=True)]
        show.print_people(show.table(cells))
    else:
        show.print_people(f"no {kind.replace('_', ' ')} that fit")


def _row(record: Snapshot, exchanges: Mapping[int, str]) -> dict[str, Any]:
    values = msgspec.structs.asdict(record)
    row = {"exchange": values.pop("exchange")}
    if "symbol_base" in values:
        row["pair"] = show.pair(values["symbol_base"], values["symbol_quote"])
    if "sell_exchange_id" in values:
        row["sold on"] = exchanges.get(values.pop("sell_exchange_id"), "?")
    row |= {_SHORT.get(name, name.replace("_", " ")): value for name, value in values.items() if name not in _HIDDEN}
    if isinstance(record, BookTicker):
        row["bps"] = round(record.spread_bps, 3)
    return row
