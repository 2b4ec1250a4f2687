"""Quotes without sizes, as brokers give them."""

from arbstore import models
from arbstore.records import StoredTick, Tick
from arbstore.services.series import PairSeries


class Ticks(PairSeries[Tick, StoredTick]):
    """Ticks of symbols."""

    table = models.Tick.__table__
    record = Tick
    stored = StoredTick
