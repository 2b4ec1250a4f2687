"""Funding rates of perpetuals."""

from arbstore import models
from arbstore.records import FundingRate, StoredFundingRate
from arbstore.services.series import PairSeries


class FundingRates(PairSeries[FundingRate, StoredFundingRate]):
    """Funding rates of symbols."""

    table = models.FundingRateSnapshot.__table__
    record = FundingRate
    stored = StoredFundingRate
