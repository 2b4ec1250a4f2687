"""Times and durations as people write and read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from arbstore.cli.show import duration, read_duration, read_moment, read_offset, time_column

NOON = datetime(2024, 8, 8, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("3d", timedelta(days=3)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("5s", timedelta(seconds=5)),
        ("250ms", timedelta(milliseconds=250)),
        ("1.5h", timedelta(minutes=90)),
        (" 2 w ", timedelta(weeks=2)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, length: timedelta) -> None:
    assert read_duration(text) == length


@pytest.mark.parametrize("text", ["", "3", "d", "3 days", "-3d", "0s", "3y", "9999999999999w", "1e3s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 3d"):
        read_duration(text)


@pytest.mark.parametrize("text", ["3d", "12h", "90m", "5s", "250ms"])
def test_a_duration_is_shown_as_it_is_given(text: str) -> None:
    assert duration(read_duration(text)) == text


@pytest.mark.parametrize(
    ("text", "hours"), [("+03:00", 3), ("-5", -5), ("+0530", 5.5), ("Z", 0), ("utc", 0), ("-00:30", -0.5)]
)
def test_an_offset_is_read_as_it_is_written(text: str, hours: float) -> None:
    assert read_offset(text) == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["", "3", "+3:75", "MSK", "+"])
def test_what_is_no_offset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an offset from UTC"):
        read_offset(text)


@pytest.mark.parametrize("text", ["2024-08-08T12:00", "2024-08-08 12:00:00Z", "2024-08-08T15:00+03:00"])
def test_a_time_without_a_zone_is_utc(text: str) -> None:
    assert read_moment(text) == NOON


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="'noon' is not a time"):
        read_moment("noon")


def test_a_date_that_all_times_share_is_said_once() -> None:
    assert time_column([NOON, NOON + timedelta(microseconds=7)]) == (
        "2024-08-08 UTC",
        ["12:00:00.000", "12:00:00.000007"],
    )
    assert time_column([NOON, NOON + timedelta(days=1)]) == (
        "time (UTC)",
        ["2024-08-08 12:00:00.000", "2024-08-09 12:00:00.000"],
    )
