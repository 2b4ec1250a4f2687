from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from arbstore.errors import ValidationError
from arbstore.records import BookTicker, columns
from tests.records.samples import SAMPLES, with_fields

BERLIN = ZoneInfo("Europe/Berlin")
TWICE = datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN)  # clocks went from 3:00 back to 2:00 that night


class Nowhere(tzinfo):
    """A time zone that does not know its offset: what has it is naive all the same."""

    def utcoffset(self, _: datetime | None) -> timedelta | None:
        return None

    dst = utcoffset

    def tzname(self, _: datetime | None) -> None:
        return None


def stored(*timestamps: Any) -> list[datetime]:
    rows = [with_fields(SAMPLES[BookTicker], timestamp=timestamp) for timestamp in timestamps]
    result: list[datetime] = columns(BookTicker, rows)["timestamp"]
    return result


def refusal(timestamp: object) -> str:
    with pytest.raises(ValidationError) as caught:
        stored(timestamp)
    return caught.value.reason


def test_the_two_hours_that_a_wall_clock_shows_twice_are_two_instants() -> None:
    first, second = stored(TWICE, TWICE.replace(fold=1))
    assert second - first == timedelta(hours=1)


def test_one_instant_is_one_value_whatever_zone_it_is_given_in() -> None:
    first, second = stored(TWICE, TWICE.astimezone(UTC))
    assert first == second
    assert hash(first) == hash(second)


def test_a_day_ahead_is_the_limit_for_clocks() -> None:
    soon = datetime.now(UTC) + timedelta(hours=23, minutes=59)
    assert stored(soon) == [soon]
    assert "future" in refusal(soon + timedelta(minutes=2))


def test_the_limit_goes_with_the_clock() -> None:
    moment = datetime.now(UTC) + timedelta(days=1)  # beyond the limit of every moment before this one
    assert stored(moment) == [moment]


def test_an_epoch_is_refused_and_told_so() -> None:
    assert "epoch" in refusal(1_723_118_400)
    assert "epoch" in refusal(1_723_118_400_000.5)


def test_seconds_read_as_milliseconds_are_refused_and_told_so() -> None:
    assert "seconds read as milliseconds" in refusal(datetime.fromtimestamp(1_723_118_400 / 1000, UTC))


def test_milliseconds_read_as_seconds_are_refused_and_told_so() -> None:
    assert "milliseconds read as seconds" in refusal(datetime.fromtimestamp(172_311_840_000, UTC))


def test_a_naive_datetime_is_refused_and_told_the_remedy() -> None:
    assert "tzinfo=UTC" in refusal(datetime(2024, 8, 8, 12))  # noqa: DTZ001 # naive is what is to be refused
    assert "tzinfo=UTC" in refusal("2024-08-08T12:00:00")


def test_a_zone_without_an_offset_makes_no_datetime_aware() -> None:
    assert "aware" in refusal(datetime(2024, 8, 8, 12, tzinfo=Nowhere()))


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_the_ends_of_the_calendar_are_refused_in_every_zone(zone: str) -> None:
    assert "future" in refusal(datetime(9999, 12, 31, 23, 59, tzinfo=ZoneInfo(zone)))
    assert "before 1971" in refusal(datetime(1, 1, 1, tzinfo=ZoneInfo(zone)))
