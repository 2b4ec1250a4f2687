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


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """How files are to be read.

    `exchange` is the enum value of the exchange the files are of; where rows name theirs, those of others are
    counted and left out. `clock` matters to websocket recordings only. `symbols` is a listing that unknown symbols are
    registered from. With `skip_bad`, malformed lines are counted instead of stopping the file. `kind` is what the rows
    of a table are, such as book_tickers, where its columns do not tell. `utc_offset` is what times without a zone are
    ahead of UTC: no such time is read without it. `timeframe`, such as 1d, is the length of bars whose file names
    none. Raises ConfigurationError for an offset of a day or more.
    """

    exchange: str | None = None
    clock: Clock = Clock.EXCHANGE
    symbols: Path | None = None
    skip_bad: bool = False
    kind: str | None = None
    utc_offset: timedelta | None = None
    timeframe: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no file can be read with."""
        if self.utc_offset is not None and abs(self.utc_offset) >= timedelta(days=1):
            raise ConfigurationError(f"--utc-offset must be less than a day, is {self.utc_offset}")

    def required_exchange(self) -> str:
        """Return the exchange; raise ConfigurationError if there is none."""
        if self.exchange is None:
            raise ConfigurationError("the files do not name their exchange: give it with --exchange")
        return self.exchange
