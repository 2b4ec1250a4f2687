"""Trades."""

from arbstore import models
from arbstore.records import StoredTrade, Trade
from arbstore.services.series import PairSeries


class Trades(PairSeries[Trade, StoredTrade]):
    """Trades of symbols; those of one instant are in the order of their ids as text."""

    table = models.TradeSnapshot.__table__
    record = Trade
    stored = StoredTrade
