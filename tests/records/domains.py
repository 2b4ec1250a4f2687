"""What each field of each record takes and refuses: the design's word, kept apart from the rules under test."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, NamedTuple

from arbstore.records import (
    Balance,
    BookTicker,
    Candle,
    CollectorState,
    CollectorStatus,
    FundingRate,
    Listing,
    Opportunity,
    OrderFlow,
    Origin,
    Record,
    Side,
    SymbolType,
    Tick,
    Trade,
)

NOW = datetime.now(UTC)
EAST = timezone(timedelta(hours=5, minutes=30))


class Asset(str, Enum):  # noqa: UP042 # the old way to write it is what many applications have
    """An enum as applications define them; its str() is `Asset.USDT`."""

    USDT = "usdt"


class OldSide(str, Enum):  # noqa: UP042 # as above
    """Spelled as an exchange spells it."""

    BUY = "BUY"


class PlainSide(Enum):
    """One that is no text itself."""

    SELL = "Sell"


class Window(IntEnum):
    """An integer by another name."""

    MINUTE = 60


class Domain(NamedTuple):
    """`takes` pairs what is given with what is stored; `refuses` is beyond None, which `optional` speaks of."""

    takes: tuple[tuple[Any, Any], ...]
    refuses: tuple[Any, ...]
    optional: bool = False

    @property
    def or_none(self) -> Domain:
        return self._replace(optional=True)


_NO_NUMBERS: tuple[Any, ...] = (
    math.nan,
    math.inf,
    -math.inf,
    "nan",
    "inf",
    "-Infinity",
    Decimal("NaN"),
    Decimal("sNaN"),
    True,
    False,
)
_NO_NUMBERS += ("", " ", "abc", "1,5", [], {}, object(), 1j, NOW)
_FLOATS = ((1.5, 1.5), (2, 2.0), ("0.00000001", 1e-8), (Decimal("1.1"), 1.1), (5e-324, 5e-324), (1.7e308, 1.7e308))
_DECIMALS = (
    (Decimal("1.50"), Decimal("1.50")),
    (0.1, Decimal("0.1")),  # by its shortest text, not by its 55 binary digits
    (1e-18, Decimal("1E-18")),
    (3, Decimal(3)),
    ("123456789.123456789012345678", Decimal("123456789.123456789012345678")),
    (Decimal("1E-200"), Decimal("1E-200")),
)
_NO_DECIMALS = (*_NO_NUMBERS, Decimal("Infinity"), Decimal("1E+400"), Decimal("1E-20000"), "1e999999")

PRICE = Domain(_FLOATS, (*_NO_NUMBERS, 0, 0.0, -0.0, -1.5, "0", "-1", Decimal(0), 10**400))
QUANTITY = Domain((*_FLOATS, (0, 0.0), (-0.0, 0.0), ("0", 0.0)), (*_NO_NUMBERS, -1e-300, -1, "-0.1", 10**400))
FINITE = Domain((*_FLOATS, (0, 0.0), (-1.5, -1.5), ("-2e5", -2e5)), (*_NO_NUMBERS, 10**400))
IMBALANCE = Domain(((1, 1.0), (-1, -1.0), (0.5, 0.5), ("-0.25", -0.25)), (*_NO_NUMBERS, 1.0000000000000002, -1.1, 2))

AMOUNT = Domain((*_DECIMALS, (0, Decimal(0)), (-0.0, Decimal(0))), (*_NO_DECIMALS, -1, "-0.1", Decimal("-1E-30")))
RATE = Domain((*_DECIMALS, (0, Decimal(0)), (-0.0001, Decimal("-0.0001"))), _NO_DECIMALS)
EXACT_PRICE = Domain(_DECIMALS, (*_NO_DECIMALS, 0, -0.0, -1, "-0.1", Decimal("-1E-30")))

_NO_INTEGERS: tuple[Any, ...] = (True, False, 1.0, 1.5, "", "1.5", "x", Decimal(1), [], math.nan, NOW)
SYMBOL_ID = Domain(((1, 1), ("17", 17), (2**31 - 1, 2**31 - 1)), (*_NO_INTEGERS, 0, -1, 2**31))
EXCHANGE_ID = Domain(((1, 1), ("17", 17), (2**15 - 1, 2**15 - 1)), (*_NO_INTEGERS, 0, -1, 2**15))
SECONDS = Domain(((1, 1), (Window.MINUTE, 60), (2**31 - 1, 2**31 - 1)), (*_NO_INTEGERS, 0, -1, 2**31))
COUNT = Domain(((0, 0), (Window.MINUTE, 60), (2**63 - 1, 2**63 - 1)), (*_NO_INTEGERS, -1, 2**63))

_NO_MOMENTS: tuple[Any, ...] = (
    "",
    "noon",
    1_723_118_400,
    1_723_118_400_000,
    1.5,
    True,
    [],
    date(2024, 8, 8),
    "2024-08-08",
)
_NO_MOMENTS += (datetime(2024, 8, 8), "2024-08-08T12:00:00")  # noqa: DTZ001 # naive is what is to be refused
_NO_MOMENTS += (datetime(1970, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(1970, 1, 20, 22, 38, tzinfo=UTC))
_MOMENTS = (
    (datetime(1971, 1, 1, tzinfo=UTC), datetime(1971, 1, 1, tzinfo=UTC)),
    (datetime(2024, 8, 8, 17, 30, tzinfo=EAST), datetime(2024, 8, 8, 12, tzinfo=UTC)),
    ("2024-08-08T12:00:00.000001Z", datetime(2024, 8, 8, 12, 0, 0, 1, tzinfo=UTC)),
    ("2024-08-08 17:30:00+05:30", datetime(2024, 8, 8, 12, tzinfo=UTC)),
)
_FAR = datetime(2100, 1, 1, tzinfo=UTC)  # a delivery date may lie years ahead
TIMESTAMP = Domain((*_MOMENTS, (NOW, NOW)), (*_NO_MOMENTS, NOW + timedelta(days=1, minutes=10), _FAR))
INSTANT = Domain((*_MOMENTS, (_FAR, _FAR)), _NO_MOMENTS)

_NO_TEXTS: tuple[Any, ...] = ("", " ", "\t\n", "\x00", "a\x00b", "\x00\x00", "\ud83d", b"abc", 1.5, True, [], NOW)
_LONG = "".join(chr(0x21 + (n * n * 7 + n) % 90) for n in range(3_000))  # too long for a key of an index
TEXT = Domain((("ws-1", "ws-1"), (17, "17"), ("é 漢 🚀", "é 漢 🚀"), (Asset.USDT, "usdt")), _NO_TEXTS)
KEY_TEXT = TEXT._replace(refuses=(*_NO_TEXTS, _LONG))
TICKER = Domain(
    (
        ("BTC", "BTC"),
        (" btc\n", "BTC"),
        ("1000shib", "1000SHIB"),
        (1, "1"),
        (Asset.USDT, "USDT"),
        ("币安人生", "币安人生"),
    ),
    (*_NO_TEXTS, _LONG, "B TC", "B\tC"),
)
TIMEFRAME = Domain(
    (("1m", "1m"), (" 15m ", "15m"), ("1M", "1M"), ("1000s", "1000s"), ("4h", "4h"), ("1d", "1d"), ("1w", "1w")),
    (*_NO_TEXTS, "0m", "m", "60", 60, "1", "1.5h", "-1m", "1y", "12345m", "1mm", "01m"),
)
FLAG = Domain(((True, True), (False, False)), (0, 1, "true", "", 1.0))


def _choice(accepted: tuple[tuple[Any, Any], ...]) -> Domain:
    return Domain(accepted, ("", " ", "nothing", 1, True, b"buy", [], math.nan))


SIDE = _choice(
    (("buy", Side.BUY), ("BUY", Side.BUY), ("Sell", Side.SELL), (OldSide.BUY, Side.BUY), (PlainSide.SELL, Side.SELL))
)
ORIGIN = _choice((*((origin, origin) for origin in Origin if not origin.is_made), ("MARK", Origin.MARK)))
FLAG = Domain(((True, True), (False, False)), (1, 0, "true", "", [], NOW))
STATUS = _choice((("RUNNING", CollectorState.RUNNING), *((state, state) for state in CollectorState)))
SYMBOL_TYPE = _choice((("perpetual", SymbolType.PERPETUAL), *((kind, kind) for kind in SymbolType)))

_EVERY = {"timestamp": TIMESTAMP, "created_at": TIMESTAMP.or_none}
_SYMBOL = _EVERY | {"symbol_id": SYMBOL_ID}
_EXCHANGE = _EVERY | {"exchange_id": EXCHANGE_ID}

DOMAINS: dict[type[Record], dict[str, Domain]] = {
    BookTicker: _SYMBOL | {"bid_price": PRICE, "bid_qty": QUANTITY, "ask_price": PRICE, "ask_qty": QUANTITY},
    Trade: _SYMBOL | {"trade_id": KEY_TEXT, "price": PRICE, "quantity": QUANTITY, "side": SIDE},
    FundingRate: _SYMBOL
    | {"funding_rate": RATE, "funding_time": INSTANT, "next_funding_time": INSTANT.or_none}
    | {"mark_price": EXACT_PRICE.or_none, "index_price": EXACT_PRICE.or_none},
    Balance: _EXCHANGE
    | {"asset_name": TICKER, "available_balance": AMOUNT, "locked_balance": AMOUNT, "frozen_balance": AMOUNT}
    | {"borrowing_balance": AMOUNT, "interest_balance": AMOUNT},
    Opportunity: _SYMBOL
    | {"buy_exchange_id": EXCHANGE_ID, "sell_exchange_id": EXCHANGE_ID, "buy_price": PRICE, "sell_price": PRICE}
    | {"quantity": QUANTITY, "spread_bps": FINITE, "net_profit": FINITE.or_none, "duration_ms": COUNT.or_none},
    OrderFlow: _SYMBOL
    | {"window_seconds": SECONDS, "ofi_score": FINITE, "microprice": PRICE, "mid_price": PRICE, "spread_bps": FINITE}
    | {"book_imbalance": IMBALANCE, "trade_imbalance": IMBALANCE.or_none},
    CollectorStatus: _EXCHANGE
    | {"collector": KEY_TEXT, "status": STATUS, "messages_per_second": QUANTITY.or_none}
    | {"last_message_at": INSTANT.or_none, "error": TEXT.or_none},
    Tick: _SYMBOL
    | {"bid": PRICE, "ask": PRICE, "volume": QUANTITY.or_none}
    | {"event_type": TEXT.or_none, "use_case": TEXT.or_none},
    # The prices of a candle bound each other: test_batches.py has those that no candle may have.
    Candle: _SYMBOL
    | {
        "timeframe": TIMEFRAME,
        "origin": ORIGIN,
        "is_closed": FLAG.or_none,
        "volume": QUANTITY.or_none,
        "vwap": PRICE.or_none,
        "num_trades": COUNT.or_none,
    }
    | dict.fromkeys(("open", "high", "low", "close"), PRICE._replace(takes=())),
    Listing: {"symbol_base": TICKER, "symbol_quote": TICKER, "exchange_symbol": KEY_TEXT, "symbol_type": SYMBOL_TYPE}
    | {"expiry": INSTANT.or_none, "contract_size": PRICE.or_none, "is_active": FLAG}
    | {"listed_at": INSTANT.or_none, "delisted_at": INSTANT.or_none},
}
FIELDS = [(kind, name) for kind, fields in DOMAINS.items() for name in fields]
