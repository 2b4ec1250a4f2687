"""What a caller tells about the files, because the files do not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from arbstore.errors import ConfigurationError


class Clock(StrEnum):
    """The clock that dates the messages of a recording."""

    EXCHANGE = "exchange"
    LOCAL = "local"


class Expired(StrEnum):
    """What happens to a file with rows that are older than the retention of their table.

    REFUSE raises ExpiredRowsError and writes nothing of the file. KEEP writes the file. Before that, it lifts the
    retention of those tables for good. ANYWAY writes the file; the server's policy or the next cleanup removes the old
    rows again.
    """

    REFUSE = "refuse"
    KEEP = "keep"
    ANYWAY = "anyway"


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """How to read the files.

    `exchange` is the enum value of the files' exchange. Rows that name another exchange are left out. `clock` dates the
    messages of a websocket recording. `symbols` is a listing: unknown symbols are registered as it lists them.
    `skip_bad` counts malformed lines instead of stopping at the first one. `kind` is the series of a table's rows, such
    as book_tickers, if its columns fit several. `utc_offset` is how far the files' clock is ahead of UTC. Without it,
    times without a zone are refused. `timeframe` is the length of candles, such as 1d, if the file does not contain it.
    `expired` decides about rows that are older than the retention of their table.

    Raises ConfigurationError for an offset of a day or more.
    """

    exchange: str | None = None
    clock: Clock = Clock.EXCHANGE
    symbols: Path | None = None
    skip_bad: bool = False
    kind: str | None = None
    utc_offset: timedelta | None = None
    timeframe: str | None = None
    expired: Expired = Expired.REFUSE

    def __post_init__(self) -> None:
        """Refuse an impossible offset."""
        if self.utc_offset is not None and abs(self.utc_offset) >= timedelta(days=1):
            raise ConfigurationError(
                f"the offset from UTC must be less than a day, is {self.utc_offset}", parameter="utc_offset"
            )
