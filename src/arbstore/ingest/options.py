"""What a caller says about the files that the files do not say themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from arbstore.errors import ConfigurationError


class Clock(StrEnum):
    """Whose clock gives a recorded message its `timestamp`."""

    EXCHANGE = "exchange"
    LOCAL = "local"


class Expired(StrEnum):
    """What is done with a file that holds rows older than what their table keeps.

    REFUSE raises ExpiredRowsError and writes nothing of it. KEEP writes it, after it lifted the retention of the tables
    concerned, which stays lifted. ANYWAY writes it, for the server's policy or the next cleanup to remove.
    """

    REFUSE = "refuse"
    KEEP = "keep"
    ANYWAY = "anyway"


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """How files are to be read.

    `exchange` is the enum value of the exchange the files are of; where rows name theirs, those of others are
    counted and left out. `clock` matters to websocket recordings only. `symbols` is a listing that unknown symbols are
    registered from. With `skip_bad`, malformed lines are counted instead of stopping the file. `kind` is what the rows
    of a table are, such as book_tickers, where its columns do not tell. `utc_offset` is what times without a zone are
    ahead of UTC: no such time is read without it. `timeframe`, such as 1d, is the length of bars whose file names
    none. `expired` is what is done with rows that are older than what their table keeps. Raises ConfigurationError for
    an offset of a day or more.
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
        """Refuse what no file can be read with."""
        if self.utc_offset is not None and abs(self.utc_offset) >= timedelta(days=1):
            raise ConfigurationError(f"--utc-offset must be less than a day, is {self.utc_offset}")

    def required_exchange(self) -> str:
        """Return the exchange; raise ConfigurationError if there is none."""
        if self.exchange is None:
            raise ConfigurationError("the files do not name their exchange: give it with --exchange")
        return self.exchange
