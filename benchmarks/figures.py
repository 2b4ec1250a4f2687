"""Figures: a ratio of two timings of one run, and the bound it should keep."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from benchmarks.measure import Timing


class Aspect(StrEnum):
    """What a ratio compares: the speed, which should be high, or the time, which should be low."""

    SPEED = "speed"
    TIME = "time"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """`ours` against `theirs`; `bound` is the least speed, or the most time, that is asked for."""

    name: str
    ours: Timing
    theirs: Timing
    bound: float | None = None
    aspect: Aspect = Aspect.SPEED
    note: str = ""

    @property
    def ratio(self) -> float:
        """Of the medians: how many times the speed of theirs, or how many times its time."""
        return self._ratio(self.ours.per_unit, self.theirs.per_unit)

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest ratio of a single round."""
        rounds = [
            self._ratio(mine / self.ours.units, other / self.theirs.units)
            for mine, other in zip(self.ours.seconds, self.theirs.seconds, strict=True)
        ]
        return min(rounds), max(rounds)

    @property
    def met(self) -> bool | None:
        """Whether the bound is kept; None where there is none."""
        if self.bound is None:
            return None
        return self.ratio >= self.bound if self.aspect is Aspect.SPEED else self.ratio <= self.bound

    def _ratio(self, ours: float, theirs: float) -> float:
        return theirs / ours if self.aspect is Aspect.SPEED else ours / theirs
