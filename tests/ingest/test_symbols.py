from __future__ import annotations

from datetime import UTC, datetime

import pytest

from arbstore.errors import UnknownSymbolError
from arbstore.ingest.symbols import SymbolName, derive
from arbstore.records import SymbolType

_DATED = datetime(2024, 9, 27, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("exchange", "spelling", "wanted"),
    [
        ("BINANCE_SPOT", "BTCUSDT", ("BTC", "USDT", "SPOT", None)),
        ("BINANCE_SPOT", "ETHBTC", ("ETH", "BTC", "SPOT", None)),
        ("BINANCE_SPOT", "BNBFDUSD", ("BNB", "FDUSD", "SPOT", None)),
        ("BINANCE_SPOT", "BTCTUSD", ("BTC", "TUSD", "SPOT", None)),
        ("BINANCE_MARGIN", "BTCUSDC", ("BTC", "USDC", "SPOT", None)),
        ("BINANCE_FUTURES", "1000SHIBUSDT", ("1000SHIB", "USDT", "PERPETUAL", None)),
        ("BINANCE_FUTURES", "BTCUSDT_240927", ("BTC", "USDT", "FUTURE", _DATED)),
        ("BINANCE_COINM_FUTURES", "BTCUSD_PERP", ("BTC", "USD", "PERPETUAL", None)),
        ("BINANCE_COINM_FUTURES", "DOTUSD_PERP", ("DOT", "USD", "PERPETUAL", None)),
        ("BINANCE_COINM_FUTURES", "BNBUSD_240927", ("BNB", "USD", "FUTURE", _DATED)),
        ("GATEIO_FUTURES", "BTC_USDT", ("BTC", "USDT", "PERPETUAL", None)),
        ("GATEIO_FUTURES", "BTC_USDT_20240927", ("BTC", "USDT", "FUTURE", _DATED)),
        ("OKX_FUTURES", "BTC-USDT-SWAP", ("BTC", "USDT", "PERPETUAL", None)),
        ("OKX_FUTURES", "BTC-USD-240927", ("BTC", "USD", "FUTURE", _DATED)),
        ("COINBASE_SPOT", "BTCUSD", ("BTC", "USD", "SPOT", None)),
        ("COINBASE_SPOT", "DOT-USD", ("DOT", "USD", "SPOT", None)),
        ("OANDA_FOREX", "EURUSD", ("EUR", "USD", "FOREX", None)),
        ("OANDA_FOREX", "eur/jpy", ("EUR", "JPY", "FOREX", None)),
        ("OANDA_FOREX", "USDHUF", ("USD", "HUF", "FOREX", None)),
    ],
)
def test_a_spelling_tells_the_contract(
    exchange: str, spelling: str, wanted: tuple[str, str, str, datetime | None]
) -> None:
    found = derive(SymbolName(exchange, spelling))
    assert (found.symbol_base, found.symbol_quote, found.symbol_type, found.expiry) == wanted
    assert found.exchange_symbol == spelling


@pytest.mark.parametrize(
    ("exchange", "spelling", "reason"),
    [
        ("COINBASE_SPOT", "DOTUSD", "it may be DOT/USD or DO/TUSD"),
        ("COINBASE_SPOT", "BNBUSD", "it may be BNB/USD or BN/BUSD"),
        ("BINANCE_SPOT", "USDT", "no base and quote"),
        ("KUCOIN_FUTURES", "XBTUSDTM", "no base and quote"),
        ("BINANCE_FUTURES", "BTCUSDT_249927", "249927 is not a date"),
        ("BINANCE_SPOT", "BTCUSDT_240927", "its type is not known"),
        ("DERIBIT_OPTIONS", "BTC-USD", "its type is not known"),
        ("BINANCE_SPOT", "A_B_C", "no base and quote"),
    ],
)
def test_a_spelling_that_leaves_a_doubt_asks_for_the_listing(exchange: str, spelling: str, reason: str) -> None:
    with pytest.raises(UnknownSymbolError, match=f"{reason}.*Give a listing of {exchange}") as error:
        derive(SymbolName(exchange, spelling))
    assert error.value.parameter == "symbols"


def test_a_pair_needs_no_spelling() -> None:
    found = derive(SymbolName("MEXC_FUTURES", base="BTC", quote="USDT"))
    assert (found.exchange_symbol, found.symbol_type) == ("BTCUSDT", SymbolType.PERPETUAL)


def test_a_dated_pair_is_spelled_with_its_date() -> None:
    found = derive(SymbolName("MEXC_FUTURES", base="BTC", quote="USDT", expiry=_DATED))
    assert (found.exchange_symbol, found.symbol_type) == ("BTCUSDT_240927", SymbolType.FUTURE)


def test_a_perpetual_has_no_expiry() -> None:
    name = SymbolName("MEXC_FUTURES", base="BTC", quote="USDT", symbol_type=SymbolType.PERPETUAL, expiry=_DATED)
    with pytest.raises(UnknownSymbolError, match="type is not known"):
        derive(name)
