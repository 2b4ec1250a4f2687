"""One test or more for each rule of the reference cache."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, cast

import msgspec
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from arbstore.cache import ReferenceCache
from arbstore.database import Database, Store
from arbstore.errors import UnknownExchangeError
from arbstore.records import Exchange, Symbol, SymbolType
from arbstore.services import exchanges, symbols
from arbstore.settings import Settings
from tests.conftest import listing


@asynccontextmanager
async def counted(db: Database) -> AsyncIterator[list[str]]:
    """Collect the SELECTs of reference tables that the block sends."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("SELECT") and ("FROM exchanges" in statement or "FROM symbols" in statement):
            sent.append(statement)

    event.listen(db.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(db.engine.sync_engine, "before_cursor_execute", note)


@pytest.fixture
async def market(committed_db: Database) -> Symbol:
    async with committed_db.begin() as store:
        exchange = await store.exchanges.add("BINANCE_SPOT")
        return await store.symbols.add(exchange.id, listing("BTC"))


async def test_answers_are_immutable_and_shared(committed_db: Database, market: Symbol) -> None:
    async with committed_db.begin() as store:
        first = await store.symbols.by_exchange(market.exchange_id)
    async with committed_db.begin() as store:
        second = await store.symbols.by_exchange(market.exchange_id)
    assert first is second
    assert isinstance(first, tuple)
    with pytest.raises(AttributeError):
        first[0].symbol_base = "ETH"  # type: ignore[misc] # that it is refused is what is tested


async def test_a_hit_awaits_nothing(committed_db: Database, market: Symbol) -> None:
    async with committed_db.begin() as store:
        await store.exchanges.by_enum("BINANCE_SPOT")
    async with committed_db.begin() as store:
        lookups = [store.exchanges.by_enum("binance_spot"), store.exchanges.by_enum("BINANCE_SPOT")]
        for lookup in lookups:
            with pytest.raises(StopIteration) as returned:
                lookup.send(None)  # a coroutine that awaited anything would yield here instead
            assert returned.value.value.enum_value == "BINANCE_SPOT"


class Market(Enum):
    CAPITALS = "BINANCE_SPOT"
    SMALL = " binance_spot"


LOOKUPS: dict[str, Callable[[Store, Symbol], list[Coroutine[Any, Any, object]]]] = {
    "an exchange by id": lambda store, symbol: [store.exchanges.get(symbol.exchange_id)],
    "an exchange by enum": lambda store, _: [
        store.exchanges.by_enum(exchange) for exchange in ("BINANCE_SPOT", "binance_spot ", *Market)
    ],
    "a symbol by id": lambda store, symbol: [store.symbols.get(symbol.id)],
    "a symbol by pair": lambda store, symbol: [
        store.symbols.by_pair(symbol.exchange_id, base, quote)
        for base, quote in (("BTC", "USDT"), ("btc", "UsdT"), (" BTC", "usdt "))
    ],
    "a symbol by pair and type": lambda store, symbol: [
        store.symbols.by_pair(symbol.exchange_id, "btc", "USDT", kind)
        for kind in (SymbolType.SPOT, cast("SymbolType", "spot"))
    ],
}


@pytest.mark.parametrize("lookups", LOOKUPS.values(), ids=LOOKUPS.keys())
async def test_however_it_is_written_a_lookup_is_one_query_and_then_hits_that_build_none(
    committed_db: Database,
    market: Symbol,
    lookups: Callable[[Store, Symbol], list[Coroutine[Any, Any, object]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with counted(committed_db) as sent, committed_db.begin() as store:
        first, *others = [await lookup for lookup in lookups(store, market)]
        assert first is not None
        assert all(other is first for other in others)
    assert len(sent) == 1
    for service in (exchanges, symbols):
        monkeypatch.delattr(service, "select")  # building a query takes longer than the lookup
    async with committed_db.begin() as store:
        before = sum(stats.hits for stats in committed_db.cache.stats().values())
        again = lookups(store, market)
        for lookup in again:
            with pytest.raises(StopIteration) as returned:
                lookup.send(None)
            assert returned.value.value is first
        assert sum(stats.hits for stats in committed_db.cache.stats().values()) == before + len(again)


@pytest.mark.parametrize("lookups", LOOKUPS.values(), ids=LOOKUPS.keys())
async def test_whoever_has_written_reads_past_the_cache_in_every_lookup(
    committed_db: Database, market: Symbol, lookups: Callable[[Store, Symbol], list[Coroutine[Any, Any, object]]]
) -> None:
    async with committed_db.begin() as store:
        for lookup in lookups(store, market):
            await lookup
    async with counted(committed_db) as sent, committed_db.begin() as store:
        await store.exchanges.add("OTHER_SPOT")
        await store.symbols.add(market.exchange_id, listing("ETH"))
        asked = lookups(store, market)
        for lookup in asked:
            await lookup
        assert len(sent) == len(asked)


async def test_an_empty_list_is_an_answer_too(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        exchange = await store.exchanges.add("EMPTY_SPOT")
    async with counted(committed_db) as sent:
        for _ in range(3):
            async with committed_db.begin() as store:
                assert await store.symbols.by_exchange(exchange.id) == ()
    assert len(sent) == 1


async def test_no_such_symbol_is_an_answer_too_but_a_brief_one() -> None:
    settings = Settings.load(database_url=None, cache_ttl=1000, cache_missing_ttl=1)
    answers = ReferenceCache(settings).symbols
    assert answers._found.ttl == 1000
    assert answers._missing.ttl == 1


async def test_a_missing_exchange_is_asked_for_once(committed_db: Database) -> None:
    async with counted(committed_db) as sent:
        for _ in range(3):
            async with committed_db.begin() as store:
                assert await store.exchanges.by_enum("NOWHERE_SPOT") is None
    assert len(sent) == 1


async def test_what_was_missing_is_found_as_soon_as_it_is_committed(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        assert await store.exchanges.by_enum("LATE_SPOT") is None
        assert await store.exchanges.all() == ()
    async with committed_db.begin() as store:
        added = await store.exchanges.add("LATE_SPOT")
    async with committed_db.begin() as store:
        assert await store.exchanges.by_enum("LATE_SPOT") == added
        assert await store.exchanges.all() == (added,)


async def test_a_change_is_seen_by_others_after_its_commit_and_not_before(
    committed_db: Database, market: Symbol
) -> None:
    async with committed_db.begin() as reader:
        assert await reader.symbols.get(market.id) == market
    async with committed_db.begin() as writer:
        await writer.symbols.sync(market.exchange_id, [listing("ETH")])
        async with committed_db.begin() as reader:
            assert await reader.symbols.get(market.id) == market
    async with committed_db.begin() as reader:
        changed = await reader.symbols.get(market.id)
    assert changed is not None
    assert not changed.is_active


async def test_only_what_changed_is_dropped(committed_db: Database, market: Symbol) -> None:
    async with committed_db.begin() as store:
        other = await store.exchanges.add("OTHER_SPOT")
        await store.symbols.add(other.id, listing("ETH"))
    async with committed_db.begin() as store:
        kept = await store.symbols.by_pair(market.exchange_id, "BTC", "USDT")
        await store.exchanges.by_enum("BINANCE_SPOT")
    async with committed_db.begin() as store:
        await store.symbols.sync(other.id, [listing("SOL")])
    async with counted(committed_db) as sent, committed_db.begin() as store:
        assert await store.symbols.by_pair(market.exchange_id, "BTC", "USDT") is kept
        await store.exchanges.by_enum("BINANCE_SPOT")
        assert sent == []
        assert await store.symbols.by_pair(other.id, "ETH", "USDT") is None
        assert len(sent) == 1


async def test_a_rollback_changes_nothing(committed_db: Database, market: Symbol) -> None:
    async with committed_db.begin() as store:
        await store.symbols.get(market.id)
    with contextlib.suppress(UnknownExchangeError):
        async with committed_db.begin() as store:
            await store.symbols.sync(market.exchange_id, [listing("ETH")])
            await store.exchanges.by_enum_one("NOWHERE_SPOT")
    async with counted(committed_db) as sent, committed_db.begin() as store:
        assert await store.symbols.get(market.id) == market
    assert sent == []


async def test_a_commit_that_is_cut_short_is_taken_for_done(committed_db: Database, market: Symbol) -> None:
    """Its task is cancelled while the server commits: who reads next must ask the server."""
    async with committed_db.begin() as reader:
        await reader.symbols.get(market.id)
    async with committed_db.session() as session:
        await Store(session, committed_db.cache).symbols.sync(market.exchange_id, [listing("ETH")])
        committing = asyncio.create_task(session.commit())
        await asyncio.sleep(0)
        committing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await committing
    async with counted(committed_db) as sent, committed_db.begin() as reader:
        await reader.symbols.get(market.id)
    assert len(sent) == 1


async def test_warming_keeps_nothing_that_is_not_committed(committed_db: Database, market: Symbol) -> None:
    async with committed_db.session() as session:
        store = Store(session, committed_db.cache)
        await store.symbols.add(market.exchange_id, listing("PHANTOM"))
        await store.symbols.warm(market.exchange_id)
        await session.rollback()
    async with committed_db.begin() as store:
        assert await store.symbols.by_pair(market.exchange_id, "PHANTOM", "USDT") is None


async def test_warm_and_cold_answer_alike(committed_db: Database, market: Symbol) -> None:
    async with committed_db.begin() as store:
        perpetual = msgspec.structs.replace(listing("BTC"), symbol_type=SymbolType.PERPETUAL, exchange_symbol="BTC-P")
        added = await store.symbols.add(market.exchange_id, perpetual)
    for warm in (False, True):
        committed_db.cache.invalidate()
        async with committed_db.begin() as store:
            if warm:
                await store.symbols.warm(market.exchange_id)
            assert await store.symbols.by_pair(market.exchange_id, "BTC", "USDT") == added


async def test_a_released_savepoint_is_no_commit(committed_db: Database, market: Symbol) -> None:
    async with committed_db.begin() as store:
        await store.symbols.get(market.id)
    async with committed_db.session() as session:
        writer = Store(session, committed_db.cache)
        async with session.begin_nested():
            await writer.symbols.sync(market.exchange_id, [listing("ETH")])
        async with committed_db.begin() as reader:
            assert await reader.symbols.get(market.id) == market
        own = await writer.symbols.get(market.id)
        assert own is not None
        assert not own.is_active
        await session.commit()
    async with committed_db.begin() as reader:
        seen = await reader.symbols.get(market.id)
    assert seen == own


async def test_a_session_that_has_written_reads_past_the_cache_and_fills_nothing_in(
    committed_db: Database, market: Symbol
) -> None:
    async with committed_db.begin() as store:
        await store.symbols.by_exchange(market.exchange_id)
    async with committed_db.session() as session:
        store = Store(session, committed_db.cache)
        await store.symbols.add(market.exchange_id, listing("ETH"))
        assert len(await store.symbols.by_exchange(market.exchange_id)) == 2
        await session.rollback()
    async with committed_db.begin() as store:
        assert len(await store.symbols.by_exchange(market.exchange_id)) == 1


async def test_after_its_commit_a_session_uses_the_cache_again(committed_db: Database, market: Symbol) -> None:
    async with committed_db.session() as session:
        store = Store(session, committed_db.cache)
        await store.symbols.add(market.exchange_id, listing("ETH"))
        await session.commit()
        await store.symbols.get(market.id)
        async with counted(committed_db) as sent:
            await store.symbols.get(market.id)
        assert sent == []


async def test_a_load_that_began_before_an_invalidation_is_not_kept(committed_db: Database) -> None:
    answers = committed_db.cache.exchanges
    async with committed_db.session() as session:

        async def slow() -> tuple[str, bool]:
            answers.invalidate([("other",)])
            return "stale", True

        assert await answers.get(session, ("key",), slow) == "stale"

        async def fresh() -> tuple[str, bool]:
            return "fresh", True

        assert await answers.get(session, ("key",), fresh) == "fresh"


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE", "SET TRANSACTION"])
async def test_an_answer_from_an_old_snapshot_is_not_kept(committed_db: Database, level: str) -> None:
    async with committed_db.session() as session:
        if level == "SET TRANSACTION":
            await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        else:
            await session.connection(execution_options={"isolation_level": level})
        await session.execute(text("SELECT 1"))  # here the snapshot is taken
        async with committed_db.begin() as writer:
            added = await writer.exchanges.add("LATE_SPOT")
        assert await Store(session, committed_db.cache).exchanges.by_enum("LATE_SPOT") is None
    async with committed_db.begin() as reader:
        assert await reader.exchanges.by_enum("LATE_SPOT") == added


async def test_whoever_asks_after_an_invalidation_does_not_wait_for_the_load_before_it(
    committed_db: Database,
) -> None:
    answers = committed_db.cache.exchanges
    go, started = asyncio.Event(), asyncio.Event()

    async def stale() -> tuple[str, bool]:
        started.set()
        await go.wait()
        return "stale", True

    async def fresh() -> tuple[str, bool]:
        return "fresh", True

    async with committed_db.session() as first, committed_db.session() as second:
        loading = asyncio.create_task(answers.get(first, ("key",), stale))
        await started.wait()
        answers.invalidate()
        assert await answers.get(second, ("key",), fresh) == "fresh"
        go.set()
        assert await loading == "stale"
        assert await answers.get(second, ("key",), stale) == "fresh"


async def test_concurrent_misses_of_one_key_make_one_query(committed_db: Database, market: Symbol) -> None:
    async def look(n: int) -> Exchange | None:
        async with committed_db.begin() as store:
            return await store.exchanges.by_enum("BINANCE_SPOT")

    async with counted(committed_db) as sent:
        found = await asyncio.gather(*(look(n) for n in range(10)))
    assert len(sent) == 1
    assert {exchange.id for exchange in found if exchange is not None} == {market.exchange_id}


async def test_those_who_wait_survive_the_cancellation_of_who_loads(committed_db: Database) -> None:
    answers = committed_db.cache.exchanges
    started = asyncio.Event()

    async def never() -> tuple[str, bool]:
        started.set()
        await asyncio.Event().wait()
        return "never", True

    async def soon() -> tuple[str, bool]:
        return "soon", True

    async with committed_db.session() as first, committed_db.session() as second:
        loading = asyncio.create_task(answers.get(first, ("key",), never))
        await started.wait()
        waiting = asyncio.create_task(answers.get(second, ("key",), soon))
        await asyncio.sleep(0)
        loading.cancel()
        assert await waiting == "soon"
        with pytest.raises(asyncio.CancelledError):
            await loading


async def test_whoever_gives_up_waiting_disturbs_neither_the_load_nor_the_others(committed_db: Database) -> None:
    answers = committed_db.cache.exchanges
    go, started = asyncio.Event(), asyncio.Event()

    async def slow() -> tuple[str, bool]:
        started.set()
        await go.wait()
        return "slow", True

    async with committed_db.session() as first, committed_db.session() as second, committed_db.session() as third:
        loading = asyncio.create_task(answers.get(first, ("key",), slow))
        await started.wait()
        impatient, patient = (asyncio.create_task(answers.get(one, ("key",), slow)) for one in (second, third))
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        go.set()
        assert [await loading, await patient] == ["slow", "slow"]


async def test_those_who_wait_hold_no_connection_that_the_loader_needs(committed_db: Database) -> None:
    """Whoever asks first has no connection, and those who hold all of them ask for the same key."""
    settings = committed_db.settings.model_copy(update={"pool_size": 2, "max_overflow": 0})
    async with Database(settings=settings) as db, db.session() as one, db.session() as two, db.session() as first:
        for holder in (one, two):
            await holder.execute(text("SELECT 1"))

        async def look(session: AsyncSession) -> object:
            found = await Store(session, db.cache).exchanges.by_enum("NOWHERE_SPOT")
            await session.close()
            return found

        asking = asyncio.create_task(look(first))
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            assert list(await asyncio.gather(look(one), look(two), asking)) == [None] * 3


async def test_stats_count_hits_misses_queries_and_sizes(committed_db: Database, market: Symbol) -> None:
    for _ in range(4):
        async with committed_db.begin() as store:
            await store.symbols.get(market.id)
    stats = committed_db.cache.stats()["symbols"]
    assert (stats.hits, stats.misses, stats.queries, stats.size) == (3, 1, 1, 1)
    assert stats.hit_ratio == 0.75
    assert committed_db.cache.stats()["exchanges"].hit_ratio == 0.0


async def test_the_cache_is_bounded_in_size(committed_db: Database) -> None:
    cache = ReferenceCache(Settings.load(cache_symbols=10))

    async def answer() -> tuple[str, bool]:
        return "x", True

    async with committed_db.session() as session:
        for number in range(50):
            await cache.symbols.get(session, ("id", number), answer)
    assert cache.stats()["symbols"].size == 10


async def test_an_entry_expires(committed_db: Database) -> None:
    cache = ReferenceCache(Settings.load(cache_ttl=0.01))
    answers = iter(["old", "new"])

    async def answer() -> tuple[str, bool]:
        return next(answers), True

    async with committed_db.session() as session:
        assert await cache.symbols.get(session, ("id", 1), answer) == "old"
        await asyncio.sleep(0.02)  # what is tested is time
        assert await cache.symbols.get(session, ("id", 1), answer) == "new"


@pytest.mark.parametrize(
    ("kind", "keys", "left"), [("symbols", None, 1), (None, None, 0), ("exchanges", [("id", 1)], 1)]
)
async def test_answers_are_invalidated_by_key_by_kind_or_all(
    committed_db: Database, kind: str | None, keys: list[tuple[str, int]] | None, left: int
) -> None:
    async def answer() -> tuple[str, bool]:
        return "x", True

    async with committed_db.session() as session:
        for answers in (committed_db.cache.exchanges, committed_db.cache.symbols):
            await answers.get(session, ("id", 1), answer)
    committed_db.cache.invalidate(kind, keys)
    assert sum(stats.size for stats in committed_db.cache.stats().values()) == left


async def test_a_warm_database_answers_its_first_lookups_without_a_query(
    committed_db: Database, market: Symbol
) -> None:
    db = Database(settings=committed_db.settings)
    await db.open(warm=True)
    try:
        async with counted(db) as sent, db.begin() as store:
            exchange = await store.exchanges.by_enum_one("BINANCE_SPOT")
            await store.symbols.by_pair_one(exchange.id, "BTC", "USDT")
            await store.symbols.get_one(market.id)
            await store.symbols.by_exchange(exchange.id)
        assert sent == []
    finally:
        await db.close()


async def test_an_applications_own_session_shares_the_rules(committed_db: Database, market: Symbol) -> None:
    async with AsyncSession(committed_db.engine) as session, session.begin():
        await Store(session, committed_db.cache).symbols.add(market.exchange_id, listing("ETH"))
    async with committed_db.begin() as store:
        assert await store.symbols.by_pair(market.exchange_id, "ETH", "USDT") is not None
