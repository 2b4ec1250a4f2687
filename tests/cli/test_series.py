"""`arbstore latest` and `history`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from arbstore.kinds import KINDS
from tests.cli.conftest import CommandLine

PAIR = ("BINANCE_SPOT", "BTC", "USDT")
SERIES = {
    "balances": ("BINANCE_SPOT", "USDT"),
    "collectors": ("BINANCE_SPOT", "quotes"),
    "candles": (*PAIR, "--timeframe", "1m"),
    "order_flow": (*PAIR, "--window", "60"),
    "opportunities": (*PAIR, "--sell-exchange", "MEXC_SPOT"),
}


@pytest.fixture
def arbstore(market: CommandLine) -> CommandLine:
    return market


def test_latest_is_the_newest_quote_of_each_symbol(arbstore: CommandLine) -> None:
    first, second = arbstore.json("latest")
    assert (first["exchange"], first["symbol_base"], first["bid_price"]) == ("BINANCE_SPOT", "BTC", 129.0)
    assert (second["exchange"], second["symbol_base"], second["bid_price"]) == ("MEXC_SPOT", "PEPE", 0.00000123)
    assert first["timestamp"] == "2024-08-08T12:00:29Z"


def test_people_see_a_table_with_every_digit(arbstore: CommandLine) -> None:
    header, _, btc, pepe = arbstore("latest").stdout.splitlines()
    assert header.split() == ["2024-08-08", "UTC", "exchange", "pair", "bid", "bid", "qty", "ask", "ask", "qty", "bps"]
    assert btc.split() == ["12:00:29.000", "BINANCE_SPOT", "BTC/USDT", "129.0", "1.0", "130.0", "2.0", "77.22"]
    assert "0.00000123" in pepe


def test_every_kind_has_a_latest_row_and_a_history(arbstore: CommandLine) -> None:
    for kind in KINDS:
        series = SERIES.get(kind, PAIR)
        past = arbstore.json("history", kind, *series)
        assert past, kind
        assert past[-1] in arbstore.json("latest", kind)
        assert "BINANCE_SPOT" in arbstore("latest", kind).stdout
        assert len(arbstore("history", kind, *series).stdout.splitlines()) == 2 + len(past)


def test_latest_takes_filters(arbstore: CommandLine) -> None:
    wanted = {
        ("--exchange", "mexc_spot"): 1,
        ("--base", "btc"): 1,
        ("--quote", "USDT"): 2,
        ("--quote", "EUR"): 0,
        ("--max-age", "5s"): 0,
        ("candles",): 2,
        ("candles", "--timeframe", "1h"): 1,
        ("order_flow", "--window", "60"): 1,
        ("balances", "--asset", "btc"): 1,
        ("COLLECTORS", "--exchange", "MEXC_SPOT", "--collector", "quotes"): 1,
    }
    assert {words: len(arbstore.json("latest", *words)) for words in wanted} == wanted


def test_a_filter_that_the_kind_has_not_is_a_usage_error(arbstore: CommandLine) -> None:
    assert "--asset: trades do not have one" in arbstore("latest", "trades", "--asset", "BTC", exits=2).stderr
    assert "--window: candles do not have one" in arbstore("history", "candles", *PAIR, "--window", "1", exits=2).stderr


def test_nothing_found_is_said_and_is_no_error(arbstore: CommandLine) -> None:
    assert arbstore("latest", "--base", "ETH").stdout == "no book tickers found\n"
    assert arbstore.json("latest", "--base", "ETH") == []


def test_decimals_are_exact_strings_for_programs_and_exact_for_people(arbstore: CommandLine) -> None:
    (balance,) = arbstore.json("latest", "balances", "--asset", "USDT")
    assert balance["available_balance"] == "1.000000000000000001"
    assert "1.000000000000000001" in arbstore("latest", "balances").stdout


def test_what_looks_like_markup_is_shown_as_it_is(arbstore: CommandLine) -> None:
    assert "[red] gone" in arbstore("latest", "collectors").stdout


def test_an_opportunity_names_the_exchange_it_is_sold_on(arbstore: CommandLine) -> None:
    assert "MEXC_SPOT" in arbstore("latest", "opportunities").stdout


def test_history_is_the_newest_twenty_rows_oldest_first(arbstore: CommandLine) -> None:
    bids = [row["bid_price"] for row in arbstore.json("history", *PAIR)]
    assert bids == [float(bid) for bid in range(110, 130)]
    assert [row["bid_price"] for row in arbstore.json("history", *PAIR, "--limit", "2")] == [128.0, 129.0]


def test_history_is_of_a_half_open_range_of_time_in_utc(arbstore: CommandLine) -> None:
    def bids(since: str, until: str) -> Iterator[float]:
        return (row["bid_price"] for row in arbstore.json("history", *PAIR, "--since", since, "--until", until))

    assert list(bids("2024-08-08T12:00:03", "2024-08-08T12:00:05")) == [103.0, 104.0]
    assert list(bids("2024-08-08T15:00:03+03:00", "2024-08-08T12:00:05Z")) == [103.0, 104.0]
    assert list(bids("2024-08-09", "2024-08-10")) == []


def test_candles_are_of_a_feed_or_made_of_trades_or_quotes(arbstore: CommandLine) -> None:
    def opens(*words: str) -> list[float]:
        return [row["open"] for row in arbstore.json("history", "candles", *PAIR, "--timeframe", "1m", *words)]

    feed, trades, quotes = (opens("--origin", source) for source in ("feed", "TRADES", "quotes"))
    assert opens() == feed
    assert trades == [row["price"] for row in arbstore.json("history", "trades", *PAIR)][:1]
    (first,) = arbstore.json("history", *PAIR, "--limit", "30")[:1]
    assert quotes == [(first["bid_price"] + first["ask_price"]) / 2]
    header = arbstore("history", "candles", *PAIR, "--timeframe", "1h", "--origin", "quotes").stdout.splitlines()[0]
    assert "volume" not in header


def test_a_source_or_a_timeframe_that_candles_have_not_is_refused(arbstore: CommandLine) -> None:
    assert (
        "--origin: trades do not have one" in arbstore("history", "trades", *PAIR, "--origin", "quotes", exits=2).stderr
    )
    arbstore("history", "candles", *PAIR, "--timeframe", "1m", "--origin", "ticks", exits=2)
    uneven = arbstore("history", "candles", *PAIR, "--timeframe", "7m", "--origin", "trades", exits=1)
    assert "does not divide a day" in uneven.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("BINANCE_SPOT", "BTC"), "book_tickers need EXCHANGE BASE QUOTE"),
        (("candles", *PAIR), "candles need EXCHANGE BASE QUOTE --timeframe"),
        (("balances", *PAIR), "balances need EXCHANGE ASSET"),
        (("opportunities", *PAIR), "--sell-exchange"),
        ((*PAIR, "--since", "noon"), "'noon' is not a time"),
        ((*PAIR, "--limit", "0"), "--limit"),
        ((), "book_tickers need EXCHANGE BASE QUOTE"),
        ((*PAIR, "--symbol-id", "1"), "replaces EXCHANGE BASE QUOTE"),
        (("balances", "--symbol-id", "1"), "balances belong to an exchange, not to a symbol"),
        (("trade", "--symbol-id", "1"), "not 'trade'"),
    ],
)
def test_a_series_that_is_not_named_whole_is_a_usage_error(
    words: tuple[str, ...], reason: str, arbstore: CommandLine
) -> None:
    assert reason in arbstore("history", *words, exits=2).stderr


@pytest.mark.parametrize("kind", ["book_tickers", "candles"])
def test_the_history_of_any_symbol_is_found_by_its_id(kind: str, arbstore: CommandLine) -> None:
    (symbol,) = arbstore.json("symbols", "--exchange", "BINANCE_SPOT")
    words = SERIES.get(kind, PAIR)[3:]
    found = arbstore.json("history", kind, "--symbol-id", str(symbol["id"]), *words, "--limit", "1000")
    wanted = arbstore.json("history", kind, *SERIES.get(kind, PAIR), "--limit", "1000")
    assert [row for row in wanted if row not in found] == []
    assert {row["symbol_base"] for row in found} == {"BTC"}


@pytest.mark.parametrize("words", [("NO_SPOT", "BTC", "USDT"), ("BINANCE_SPOT", "NO", "USDT")])
def test_what_is_not_registered_exits_with_4(words: tuple[str, ...], arbstore: CommandLine) -> None:
    result = arbstore("history", *words, exits=4)
    assert "is not registered" in result.stderr
    assert result.stdout == ""


def test_a_range_that_ends_before_it_begins_is_refused(arbstore: CommandLine) -> None:
    result = arbstore("history", *PAIR, "--since", "2024-08-09", "--until", "2024-08-08", exits=1)
    assert "is after until" in result.stderr
