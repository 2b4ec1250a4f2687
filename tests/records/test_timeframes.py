from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbstore.records import Timeframe

FRAMES = ["1m", "5m", "90m", "1h", "4h", "24h", "1d", "7d", "1w", "1M", "2M", "3M", "4M", "6M", "12M"]
frames = st.sampled_from(FRAMES).map(Timeframe.parse)
moments = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 # the strategy adds it
LEAP_DAY = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)  # a Thursday


@pytest.mark.parametrize(
    ("timeframe", "begin"),
    [
        ("1m", "2024-02-29T23:59"),
        ("90m", "2024-02-29T22:30"),
        ("4h", "2024-02-29T20:00"),
        ("1d", "2024-02-29"),
        ("1w", "2024-02-26"),
        ("1M", "2024-02-01"),
        ("2M", "2024-01-01"),
        ("3M", "2024-01-01"),
        ("12M", "2024-01-01"),
    ],
)
def test_bars_begin_where_those_of_exchanges_do(timeframe: str, begin: str) -> None:
    assert Timeframe.parse(timeframe).floor(LEAP_DAY) == datetime.fromisoformat(begin).replace(tzinfo=UTC)


@given(frames, moments)
def test_a_moment_is_in_the_one_bar_that_begins_last_before_it(frame: Timeframe, moment: datetime) -> None:
    begin = frame.floor(moment)
    following = frame.step(begin, 1)
    assert begin <= moment < following
    assert frame.floor(begin) == begin
    assert frame.floor(following - timedelta(microseconds=1)) == begin
    assert frame.ceil(moment) == (begin if moment == begin else following)


@given(frames, moments, st.integers(-500, 500))
def test_steps_go_there_and_back(frame: Timeframe, moment: datetime, bars: int) -> None:
    begin = frame.floor(moment)
    there = frame.step(begin, bars)
    assert frame.step(there, -bars) == begin
    assert frame.floor(there) == there


@pytest.mark.parametrize("frame", ["1m", "1w", "1M", "12M"])
@pytest.mark.parametrize("edge", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_beyond_all_time_there_are_no_bars(frame: str, edge: datetime) -> None:
    bars = 10**10 if edge.year > 1 else -(10**10)
    with pytest.raises(OverflowError):
        Timeframe.parse(frame).step(edge.replace(day=1), bars)


@pytest.mark.parametrize("given", ["7m", "5h", "13d", "2d", "2w", "5M", "7s", "61s", "1y", "0m", "m"])
def test_what_comes_out_uneven_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"does not divide|not a number of minutes|such as 1m"):
        Timeframe.parse(given)


def test_a_length_has_one_spelling() -> None:
    spelled = {
        "60m": "1h",
        "24h": "1d",
        "7d": "1w",
        "60s": "1m",
        "1440m": "1d",
        "86400s": "1d",
        "90s": "90s",
        "1s": "1s",
    }
    assert {given: Timeframe.parse(given).text for given in spelled} == spelled
    assert Timeframe.parse(" 300S ") == Timeframe("5m", timedelta(minutes=5), 0)
    assert Timeframe.parse("1M").months == 1
    assert Timeframe.parse("1m").length == timedelta(minutes=1)
