"""A balance sync: writes the exact balances of accounts, and prints the changes since the last visit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from arbstore import Balance, Database, Exchange, Store, migrations

# Stands in for the REST calls: two visits to two exchanges. The amounts are texts, as exchanges send them. A float
# would lose the last of eighteen decimals.
VISITS: list[dict[str, dict[str, str]]] = [
    {
        "EXAMPLE_SPOT": {"USDT": "10000.00", "ETH": "1.000000000000000001"},
        "SAMPLE_SPOT": {"USDT": "2500.5"},
    },
    {
        "EXAMPLE_SPOT": {"USDT": "9500.00", "ETH": "1.200000000000000003"},
        "SAMPLE_SPOT": {"USDT": "2500.5", "BTC": "0.008"},
    },
]


async def sync(store: Store, accounts: Mapping[str, Mapping[str, str]]) -> dict[tuple[str, str], Decimal]:
    """Write the balances of one visit, and return the changes by exchange and asset."""
    before = {(row.exchange, row.asset_name): row.available_balance for row in await store.balances.latest()}
    now = datetime.now(UTC)
    exchanges = {name: await known(store, name) for name in accounts}
    await store.balances.insert(
        Balance(exchange_id=exchanges[name].id, asset_name=asset, timestamp=now, available_balance=Decimal(amount))
        for name, assets in accounts.items()
        for asset, amount in assets.items()
    )
    after = {(row.exchange, row.asset_name): row.available_balance for row in await store.balances.latest()}
    changes = {key: amount - before.get(key, Decimal(0)) for key, amount in after.items()}
    return {key: change for key, change in changes.items() if change}


async def known(store: Store, name: str) -> Exchange:
    """Return the exchange; register it first if it is new."""
    return await store.exchanges.by_enum(name) or await store.exchanges.add(name)


async def main() -> None:
    """Make two visits, and write into the configured database."""
    async with Database() as db:
        await migrations.deploy(db)
        for number, accounts in enumerate(VISITS, start=1):
            async with db.begin() as store:
                for (exchange, asset), change in (await sync(store, accounts)).items():
                    print(f"visit {number}: {exchange} {asset} {change:+}")
        async with db.begin() as store:
            history = await store.balances.history("EXAMPLE_SPOT", "ETH")
            print(f"ETH went from {history[0].available_balance} to {history[-1].available_balance}")


if __name__ == "__main__":
    asyncio.run(main())
