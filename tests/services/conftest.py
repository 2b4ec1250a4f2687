from __future__ import annotations

import pytest_asyncio

from arbstore.database import Store
from tests.services.cases import Market, open_market


@pytest_asyncio.fixture
async def market(store: Store) -> Market:
    return await open_market(store)
