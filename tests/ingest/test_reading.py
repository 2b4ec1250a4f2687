from __future__ import annotations

import gzip
import zipfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as arrow  # type: ignore[import-untyped] # it has no types
import pyarrow.parquet as parquet  # type: ignore[import-untyped] # it has no types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbstore.errors import ConfigurationError
from arbstore.ingest import MalformedLineError, UnknownFormatError
from arbstore.ingest.formats.tables import ParquetRows
from arbstore.ingest.reading import CsvRows, Lines, MissingOffsetError, aware, from_epoch
from tests.ingest.reading import write

_YEAR_9999 = 253_402_300_799


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_lines_come_without_their_ends_and_are_counted(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "one", "", "three\r")
    with closing(Lines(path)) as lines:
        assert [(lines.number, line) for line in lines] == [(1, b"one"), (2, b""), (3, b"three")]
        assert lines.position == path.stat().st_size


def test_a_byte_order_mark_belongs_to_no_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n")
    with closing(CsvRows(tmp_path / "a.csv")) as rows:
        assert list(rows) == [{"a": "1", "b": "2"}]


def test_a_truncated_gzip_gives_its_lines_then_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"one\ntwo\n")[:-9])
    with closing(Lines(path)) as lines:
        assert [next(lines), next(lines)] == [b"one", b"two"]
        with pytest.raises(ValueError, match="break off"):
            next(lines)
        assert list(lines) == []


@pytest.mark.parametrize(
    "content", [b"not packed\n", gzip.compress(b"one\n" * 99)[:12] + b"\0" * 30], ids=["no gzip", "damaged"]
)
def test_broken_gzip_is_a_malformed_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(content)
    with closing(Lines(path)) as lines, pytest.raises(ValueError, match="break off"):
        list(lines)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"a\.csv cannot be read: No such file"):
        Lines(tmp_path / "a.csv")


def test_a_zip_holds_one_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", "1")
        archive.writestr("b.csv", "1")
    with pytest.raises(UnknownFormatError, match="holds 2 files"):
        Lines(tmp_path / "a.zip")


def test_what_is_no_zip_is_malformed_as_a_whole(tmp_path: Path) -> None:
    with pytest.raises(MalformedLineError, match=r"a\.zip: the zip cannot be read") as error:
        Lines(write(tmp_path / "a.zip", "text"))
    assert error.value.line is None


def test_a_damaged_zip_is_a_malformed_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", "1,2,3")
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(b"1,2,3", b"1,2,4", 1))
    with closing(Lines(tmp_path / "a.zip")) as lines, pytest.raises(ValueError, match="CRC"):
        list(lines)


def test_a_row_of_another_length_is_refused_and_the_next_read(tmp_path: Path) -> None:
    with closing(CsvRows(write(tmp_path / "a.csv", "a,b", "1", "1,2,3", "", '"x\ny",2', "5,6"))) as rows:
        for count in (1, 3):
            with pytest.raises(ValueError, match=f"has {count} cells, but the header has 2"):
                next(rows)
        assert (next(rows), rows.number) == ({}, 4)
        # No cell has two lines: a stray quote would look like the beginning of one.
        with pytest.raises(ValueError, match="unexpected end of data"):
            next(rows)
        assert [(row, rows.number) for row in rows] == [({"a": 'y"', "b": "2"}, 6), ({"a": "5", "b": "6"}, 7)]


def test_a_row_that_is_no_text_is_refused_and_the_next_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a\n\xff\n1\n")
    with closing(CsvRows(tmp_path / "a.csv")) as rows:
        with pytest.raises(ValueError, match="utf-8"):
            next(rows)
        assert (list(rows), rows.number) == ([{"a": "1"}], 3)


@pytest.mark.parametrize(("header", "reason"), [("", "is empty"), ("a,b, a", "two columns of one name")])
def test_a_table_needs_a_header(tmp_path: Path, header: str, reason: str) -> None:
    with closing(CsvRows(write(tmp_path / "a.csv", header))) as rows, pytest.raises(UnknownFormatError, match=reason):
        next(rows)


def test_a_header_that_is_no_text_is_line_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\n")
    with closing(CsvRows(tmp_path / "a.csv")) as rows, pytest.raises(MalformedLineError, match="line 1"):
        next(rows)


def test_parquet_times_lose_their_nanoseconds(tmp_path: Path) -> None:
    times = arrow.array([1_723_161_500_003_145_516], arrow.timestamp("ns", "UTC"))
    parquet.write_table(arrow.table({"timestamp": times}), tmp_path / "a.parquet")
    with closing(ParquetRows(tmp_path / "a.parquet")) as rows:
        (row,) = rows
        assert row["timestamp"].isoformat() == "2024-08-08T23:58:20.003145+00:00"
        assert (rows.number, rows.position) == (1, (tmp_path / "a.parquet").stat().st_size)


def test_what_is_no_parquet_is_malformed_as_a_whole(tmp_path: Path) -> None:
    with pytest.raises(MalformedLineError, match="the Parquet file cannot be read"):
        ParquetRows(write(tmp_path / "a.parquet", "text"))


def test_parquet_data_that_are_damaged_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"a": list(range(1000))}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[20:200] = bytes(180)
    path.write_bytes(content)
    with closing(ParquetRows(path)) as rows, pytest.raises(MalformedLineError, match="cannot be read"):
        list(rows)


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"arbstore\[frames\]"):
        ParquetRows(tmp_path / "a.parquet")


@given(st.integers(0, _YEAR_9999 * 1000))
def test_milliseconds_are_exact(since_epoch: int) -> None:
    moment = from_epoch(since_epoch, a_second=1_000)
    assert (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) == since_epoch
    assert moment.microsecond % 1000 == 0


@given(st.integers(0, _YEAR_9999 * 10**9))
def test_nanoseconds_are_cut_to_the_microsecond(since_epoch: int) -> None:
    moment = from_epoch(since_epoch, a_second=1_000_000_000)
    assert (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) == since_epoch // 1000


def test_a_time_without_a_zone_is_moved_by_the_offset() -> None:
    assert aware("at", "2023-11-01 03:00:00.000", timedelta(hours=3)) == datetime(2023, 11, 1, tzinfo=UTC)
    assert aware("at", "2014-05-04 14:00:51", timedelta(hours=-5)) == datetime(2014, 5, 4, 19, 0, 51, tzinfo=UTC)


def test_a_time_without_a_zone_is_not_guessed() -> None:
    with pytest.raises(MissingOffsetError, match=r"at: 2023.* has no time zone: say how far"):
        aware("at", "2023-11-01 03:00:00", None)


def test_a_zone_that_is_written_wins_over_the_offset() -> None:
    assert aware("at", "2023-11-01T00:00:00Z", timedelta(hours=3)) == datetime(2023, 11, 1, tzinfo=UTC)
