"""Recordings of Binance's websockets: each line is `<local clock in ns> <message>`, a book ticker or a trade.

The messages are those of the combined streams of spot and of both kinds of futures:
https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

import msgspec

from arbstore.ingest.options import Clock
from arbstore.ingest.reading import JSON, Format, Lines, Row, from_epoch
from arbstore.ingest.symbols import OwnerName, SymbolName
from arbstore.records import Side


class _Message(msgspec.Struct):
    stream: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _BookTicker(msgspec.Struct):
    symbol: str = msgspec.field(name="s")
    bid: float = msgspec.field(name="b")
    bid_qty: float = msgspec.field(name="B")
    ask: float = msgspec.field(name="a")
    ask_qty: float = msgspec.field(name="A")
    time: int | None = msgspec.field(name="T", default=None)  # spot has none


class _Trade(msgspec.Struct):
    symbol: str = msgspec.field(name="s")
    id: int = msgspec.field(name="t")
    price: float = msgspec.field(name="p")
    quantity: float = msgspec.field(name="q")
    buyer_made: bool = msgspec.field(name="m")
    time: int = msgspec.field(name="T")
    source: str = msgspec.field(name="X", default="MARKET")  # spot has none


_message = msgspec.json.Decoder(_Message)
# Not strict: numbers are written as text.
_book_ticker = msgspec.json.Decoder(_BookTicker, strict=False)
_trade = msgspec.json.Decoder(_Trade, strict=False)


class Recording(Format):
    """A recording of one of Binance's markets. It does not say which market that is."""

    name = "Binance websocket recording"
    endings = JSON
    opens = Lines

    @classmethod
    def fits(cls, head: list[bytes]) -> bool:
        """Look at several lines: a recording that was rotated may begin in the middle of one."""
        parts = (line.partition(b" ") for line in head)
        return any(clock.isdigit() and message.startswith(b"{") for clock, _, message in parts)

    def read(self, line: bytes) -> Row | str:
        """Return the book ticker or trade."""
        clock, _, content = line.partition(b" ")
        if not clock.isdigit():
            raise ValueError("does not begin with the local clock in nanoseconds")
        message = _message.decode(content)
        if message.stream is None:
            return "no stream" if message.result is msgspec.UNSET else "subscription answer"
        # btcusdt@bookTicker is the stream of one symbol, !bookTicker that of all.
        name = message.stream.rpartition("!")[2] if "@" not in message.stream else message.stream.split("@")[1]
        received = from_epoch(int(clock), a_second=1_000_000_000)
        if name == "bookTicker":
            return self._book_ticker(_book_ticker.decode(message.data), received)
        if name == "trade":
            return self._trade(_trade.decode(message.data), received)
        return name

    def _book_ticker(self, event: _BookTicker, received: datetime) -> Row:
        values = {
            "timestamp": self._dated(event.time, received),
            "created_at": received,
            "bid_price": event.bid,
            "bid_qty": event.bid_qty,
            "ask_price": event.ask,
            "ask_qty": event.ask_qty,
        }
        dated_locally = event.time is None and self.options.clock is Clock.EXCHANGE
        return Row("book_tickers", _owners(self.exchange, event.symbol), values, dated_locally)

    def _trade(self, event: _Trade, received: datetime) -> Row | str:
        if event.source != "MARKET":
            return f"X={event.source}"  # not a trade of the order book: the insurance fund took over a position
        values = {
            "timestamp": self._dated(event.time, received),
            "created_at": received,
            "trade_id": str(event.id),
            "price": event.price,
            "quantity": event.quantity,
            "side": Side.SELL if event.buyer_made else Side.BUY,
        }
        return Row("trades", _owners(self.exchange, event.symbol), values)

    def _dated(self, time: int | None, received: datetime) -> datetime:
        if time is None or self.options.clock is Clock.LOCAL:
            return received
        return from_epoch(time, a_second=1_000)


@lru_cache(maxsize=2**12)
def _owners(exchange: str, symbol: str) -> tuple[tuple[str, OwnerName], ...]:
    if not symbol:
        raise ValueError("names no symbol")
    return (("symbol_id", SymbolName(exchange, symbol)),)
