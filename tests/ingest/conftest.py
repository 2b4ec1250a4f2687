from __future__ import annotations

import pytest

from arbstore.ingest import pipeline


@pytest.fixture
def batch_size(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many rows make a batch: a tenth of the usual, so that files of several are quickly read."""
    monkeypatch.setattr(pipeline, "_ROWS_A_BATCH", 5_000)
    return 5_000
