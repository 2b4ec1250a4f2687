"""Best bids and asks."""

from arbstore import models
from arbstore.records import BookTicker, StoredBookTicker
from arbstore.services.series import PairSeries


class BookTickers(PairSeries[BookTicker, StoredBookTicker]):
    """Book tickers of symbols."""

    table = models.BookTickerSnapshot.__table__
    record = BookTicker
    stored = StoredBookTicker
