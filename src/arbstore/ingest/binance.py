"""Websocket recordings of Binance, `<local clock in ns> <message>` a line, to book tickers and trades.

The messages are those of the combined streams, spot and both kinds of futures:
https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from arbstore.ingest.options import Clock, IngestOptions
from arbstore.ingest.rows import Ignored, Owner, Row, SymbolName
from arbstore.ingest.times import from_milliseconds, from_nanoseconds
from arbstore.records import Side


class _Message(msgspec.Struct):
    stream: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _BookTicker(
    msgspec.Struct,
    rename={"symbol": "s", "bid": "b", "bid_qty": "B", "ask": "a", "ask_qty": "A", "time": "T"},
):
    symbol: str
    bid: float
    bid_qty: float
    ask: float
    ask_qty: float
    time: int | None = None  # spot has none


class _Trade(
    msgspec.Struct,
    rename={"symbol": "s", "id": "t", "price": "p", "quantity": "q", "buyer_made": "m", "time": "T", "source": "X"},
):
    symbol: str
    id: int
    price: float
    quantity: float
    buyer_made: bool
    time: int
    source: str = "MARKET"  # spot has none


class _Event(msgspec.Struct, rename={"name": "e"}):
    name: str


_message = msgspec.json.Decoder(_Message)
# Not strict: numbers are written as text.
_book_ticker = msgspec.json.Decoder(_BookTicker, strict=False)
_trade = msgspec.json.Decoder(_Trade, strict=False)
_event = msgspec.json.Decoder(_Event)


class BinanceParser:
    """Reads lines of one market; which of Binance's it is, they do not say."""

    def __init__(self, options: IngestOptions) -> None:
        """Raise ConfigurationError if no exchange is given."""
        self._exchange = options.required_exchange()
        self._local_only = options.clock is Clock.LOCAL
        self._owners: dict[str, tuple[tuple[str, Owner], ...]] = {}

    def __call__(self, line: bytes, /) -> Row | Ignored:
        """Return what the line holds; raise ValueError with the reason if it is malformed."""
        if not line:
            return "blank line"
        clock, _, content = line.partition(b" ")
        if not clock.isdigit():
            raise ValueError("does not begin with the local clock in nanoseconds")
        message = _message.decode(content)
        if message.stream is None:
            return "no stream" if message.result is msgspec.UNSET else "subscription answer"
        # btcusdt@bookTicker; !bookTicker is that of all symbols.
        name = message.stream.rpartition("!")[2] if "@" not in message.stream else message.stream.split("@")[1]
        received = from_nanoseconds(int(clock))
        if name == "bookTicker":
            return self._book_ticker(_book_ticker.decode(message.data), received)
        if name == "trade":
            return self._trade(_trade.decode(message.data), received)
        return _event_name(message.data) or name

    def _book_ticker(self, event: _BookTicker, received: datetime) -> Row:
        dated = event.time is not None
        values = {
            "timestamp": received if event.time is None or self._local_only else from_milliseconds(event.time),
            "created_at": received,
            "bid_price": event.bid,
            "bid_qty": event.bid_qty,
            "ask_price": event.ask,
            "ask_qty": event.ask_qty,
        }
        return Row("book_tickers", self._owner(event.symbol), values, not dated and not self._local_only)

    def _trade(self, event: _Trade, received: datetime) -> Row | Ignored:
        if event.source != "MARKET":
            return f"X={event.source}"  # liquidations taken over by the insurance fund and the like
        values = {
            "timestamp": received if self._local_only else from_milliseconds(event.time),
            "created_at": received,
            "trade_id": str(event.id),
            "price": event.price,
            "quantity": event.quantity,
            "side": Side.SELL if event.buyer_made else Side.BUY,
        }
        return Row("trades", self._owner(event.symbol), values)

    def _owner(self, symbol: str) -> tuple[tuple[str, Owner], ...]:
        if not symbol:
            raise ValueError("names no symbol")
        if symbol not in self._owners:
            self._owners[symbol] = (("symbol_id", SymbolName(self._exchange, symbol)),)
        return self._owners[symbol]


def _event_name(data: msgspec.Raw) -> str | None:
    try:
        return _event.decode(data).name
    except msgspec.ValidationError:
        return None  # a list of events, or one without a name: the stream's name tells what it is
