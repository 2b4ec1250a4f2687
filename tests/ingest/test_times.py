from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbstore.ingest.times import aware, from_milliseconds, from_nanoseconds, of_day

_YEAR_9999 = 253_402_300_799


@given(st.integers(0, _YEAR_9999 * 1000))
def test_milliseconds_are_exact(since_epoch: int) -> None:
    moment = from_milliseconds(since_epoch)
    assert (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) == since_epoch
    assert moment.microsecond % 1000 == 0


@given(st.integers(0, _YEAR_9999 * 10**9))
def test_nanoseconds_are_cut_to_the_microsecond(since_epoch: int) -> None:
    moment = from_nanoseconds(since_epoch)
    assert (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) == since_epoch // 1000


def test_a_time_without_a_zone_is_moved_by_the_offset() -> None:
    assert aware("2023-11-01 03:00:00.000", timedelta(hours=3)) == datetime(2023, 11, 1, tzinfo=UTC)
    assert aware("2014-05-04 14:00:51", timedelta(hours=-5)) == datetime(2014, 5, 4, 19, 0, 51, tzinfo=UTC)


def test_a_time_without_a_zone_is_not_guessed() -> None:
    with pytest.raises(ValueError, match=r"has no time zone: say with --utc-offset"):
        aware("2023-11-01 03:00:00", None)


def test_a_zone_that_is_written_wins_over_the_offset() -> None:
    assert aware("2023-11-01T00:00:00Z", timedelta(hours=3)) == datetime(2023, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["86400000", "-1", "1.5", "", "x", "²"])
def test_what_is_no_time_of_the_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no count of milliseconds since midnight"):
        of_day(date(2014, 5, 4), text, timedelta(0))
