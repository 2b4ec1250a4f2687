from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from sqlalchemy import NullPool, insert, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from arbstore import errors
from arbstore.database import Database, Store
from arbstore.errors import (
    ArbstoreError,
    ConfigurationError,
    DatabaseConnectionError,
    DatabaseError,
    DuplicateError,
    PoolExhaustedError,
    QueryError,
    QueryTimeoutError,
    SchemaOutOfDateError,
    UnknownExchangeError,
    UnknownSymbolError,
    ValidationError,
    translated,
)
from arbstore.models import Base
from arbstore.records import Symbol
from arbstore.settings import Settings
from tests.conftest import NOON, listing, quote

NOBODY = "postgresql://trader:hunter2@127.0.0.1:1/market"  # port 1 is nobody's
EXCHANGES = Base.metadata.tables["exchanges"]

Call = Callable[[Store], Awaitable[object]]
CALLS: dict[str, Call] = {
    "exchanges.get": lambda store: store.exchanges.get(1),
    "exchanges.all": lambda store: store.exchanges.all(),
    "exchanges.add": lambda store: store.exchanges.add("MEXC_SPOT"),
    "exchanges.sync": lambda store: store.exchanges.sync(["MEXC_SPOT"]),
    "symbols.by_pair": lambda store: store.symbols.by_pair(1, "BTC", "USDT"),
    "symbols.add_many": lambda store: store.symbols.add_many(1, [listing("BTC")]),
    "symbols.sync": lambda store: store.symbols.sync(1, [listing("BTC")]),
    "ticks.insert": lambda store: store.ticks.insert([{"symbol_id": 1, "timestamp": NOON, "bid": 1, "ask": 2}]),
    "ticks.latest": lambda store: store.ticks.latest(),
    "balances.latest": lambda store: store.balances.latest(),
    "trades.history_by_id": lambda store: store.trades.history_by_id(1),
    "maintenance.stats": lambda store: store.maintenance.stats(),
    "maintenance.cleanup": lambda store: store.maintenance.cleanup(),
    "maintenance.expire": lambda store: store.maintenance.expire("ticks", NOON, 1),
}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def database(url: str, **settings: Any) -> Database:
    return Database(url, settings=Settings.load(database_url=url, **settings))


async def run(db: Database, call: Call) -> None:
    async with db.begin() as store:
        await call(store)


async def failure(db: Database, call: Call) -> ArbstoreError:
    with pytest.raises(ArbstoreError) as caught:
        await run(db, call)
    return caught.value


async def execute(store: Store, statement: Any) -> None:
    with translated():
        await store.session.execute(statement if not isinstance(statement, str) else text(statement))


def test_every_error_is_one_of_ours_and_explains_itself() -> None:
    ours = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert all(issubclass(kind, ArbstoreError) and kind.__doc__ for kind in ours)
    assert all(issubclass(kind, LookupError) for kind in (UnknownExchangeError, UnknownSymbolError))
    of_the_database = (DatabaseConnectionError, PoolExhaustedError, QueryTimeoutError, QueryError, DuplicateError)
    assert all(issubclass(kind, DatabaseError) for kind in (*of_the_database, SchemaOutOfDateError))


async def test_a_server_that_is_not_there() -> None:
    with pytest.raises(DatabaseConnectionError, match="cannot be reached") as caught:
        await database(NOBODY, connect_timeout=0.1).open()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.sqlstate is None


async def test_a_host_that_has_no_address() -> None:
    with pytest.raises(DatabaseConnectionError, match="cannot be reached"):
        await database("postgresql://host.invalid/market", connect_timeout=0.1).open()


async def test_a_database_that_does_not_exist(arbstore_url: str) -> None:
    url = make_url(arbstore_url).set(database="no_such_database").render_as_string(hide_password=False)
    with pytest.raises(DatabaseConnectionError, match="no_such_database") as caught:
        await database(url, connect_timeout=600).open()  # not waited for: it stays wrong
    assert caught.value.sqlstate == "3D000"


async def test_a_wrong_password(arbstore_url: str) -> None:
    if (password := make_url(arbstore_url).password) is None:
        pytest.skip("this server trusts everyone")
    url = arbstore_url.replace(f":{password}@", ":hunter2@")
    with pytest.raises(DatabaseConnectionError) as caught:
        await database(url, connect_timeout=600).open()  # not waited for either
    assert caught.value.sqlstate == "28P01"
    assert asyncpg.InvalidPasswordError in map(type, chain(caught.value))
    assert [error for error in chain(caught.value) if "hunter2" in f"{error} {error!r}"] == []


async def test_a_password_is_in_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    db = database(NOBODY, connect_timeout=0.5)
    with pytest.raises(DatabaseConnectionError) as caught:
        await db.open()
    texts = [caplog.text, repr(db), *traceback.format_exception(caught.value), *map(repr, chain(caught.value))]
    texts += [str(vars(record)) for record in caplog.records]
    assert [found for found in texts if "hunter2" in found] == []


async def test_a_database_that_is_not_open() -> None:
    with pytest.raises(ConfigurationError, match="not open"):
        database(NOBODY).session()


@pytest.mark.parametrize("sslmode", ["disable", "allow", "prefer"])
async def test_a_pasted_url_may_say_how_to_use_tls(arbstore_url: str, sslmode: str) -> None:
    url = make_url(arbstore_url).update_query_dict({"sslmode": sslmode}).render_as_string(hide_password=False)
    async with database(url) as db, db.begin() as store:
        assert await store.exchanges.all() == ()


async def test_a_pasted_url_that_demands_tls_gets_it_or_fails_to_connect() -> None:
    with pytest.raises(DatabaseConnectionError):
        await database(f"{NOBODY}?sslmode=require", connect_timeout=0.1).open()


@pytest.mark.parametrize("query", ["sslmode=perhaps", "nonsense=1", "prepared_statement_cache_size=many"])
async def test_a_parameter_of_the_url_that_nobody_knows_is_refused_by_name(query: str) -> None:
    with pytest.raises(ConfigurationError, match=query.partition("=")[0]):
        await database(f"{NOBODY}?{query}", connect_timeout=0.1).open()


async def test_a_certificate_that_is_missing_is_a_fault_of_the_settings() -> None:
    with pytest.raises(ConfigurationError):
        await database(NOBODY, connect_timeout=0.1, ssl_mode="verify-full").open()


async def test_a_pool_that_is_exhausted(arbstore_url: str) -> None:
    async with database(arbstore_url, pool_size=1, max_overflow=0, pool_timeout=0.01) as db, db.begin() as holding:
        await holding.session.connection()
        for name, call in CALLS.items():
            error = await failure(db, call)
            assert isinstance(error, PoolExhaustedError), name
            assert "ARBSTORE_POOL_SIZE" in str(error)


async def test_a_schema_that_was_not_deployed(empty_db: Database) -> None:
    for name, call in CALLS.items():
        error = await failure(empty_db, call)
        assert isinstance(error, SchemaOutOfDateError), name
        assert "arbstore db upgrade" in str(error)
        assert error.sqlstate in ("42P01", "42883"), name  # no table, or no function
        assert isinstance(error.__cause__, DBAPIError)


async def test_a_column_that_is_missing(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        await execute(store, "ALTER TABLE ticks DROP COLUMN use_case")
    with pytest.raises(SchemaOutOfDateError, match="use_case") as caught:
        await run(committed_db, CALLS["ticks.latest"])
    assert caught.value.sqlstate == "42703"


async def test_a_statement_that_runs_longer_than_it_may(committed_db: Database) -> None:
    url = committed_db.engine.url.render_as_string(hide_password=False)
    async with committed_db.begin() as holding, database(url, statement_timeout=0.5) as db:
        await execute(holding, "LOCK TABLE ticks IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(QueryTimeoutError) as caught:
            await run(db, CALLS["ticks.latest"])
    assert caught.value.sqlstate == "57014"


async def test_a_statement_may_run_for_ever_where_the_settings_say_so(arbstore_url: str) -> None:
    async with database(arbstore_url, statement_timeout=0) as db, db.begin() as store:
        assert await store.session.scalar(text("SHOW statement_timeout")) == "0"


async def test_the_application_is_known_to_the_server(arbstore_url: str) -> None:
    async with database(arbstore_url, application_name="collector 7") as db, db.begin() as store:
        assert await store.session.scalar(text("SHOW application_name")) == "collector 7"


async def test_a_unique_constraint(store: Store) -> None:
    row = {"enum_value": "MEXC_SPOT", "exchange_name": "MEXC", "market_type": "SPOT"}
    await execute(store, insert(EXCHANGES).values(row))
    with pytest.raises(DuplicateError, match="MEXC_SPOT") as caught:
        await execute(store, insert(EXCHANGES).values(row))
    assert (caught.value.sqlstate, caught.value.constraint) == ("23505", "uq_exchanges_enum_value")
    assert isinstance(caught.value.__cause__, DBAPIError)


async def test_a_check_constraint(store: Store) -> None:
    row = {"enum_value": "mexc", "exchange_name": "MEXC", "market_type": "SPOT"}
    with pytest.raises(ValidationError) as caught:
        await execute(store, insert(EXCHANGES).values(row))
    assert (caught.value.field, caught.value.row) == ("chk_enum_format", None)
    assert isinstance(caught.value.__cause__, DBAPIError)


async def test_a_foreign_key_names_what_is_missing(store: Store, symbol: Symbol) -> None:
    with pytest.raises(UnknownExchangeError, match="32000") as caught:
        await store.symbols.add(32_000, listing("BTC"))
    assert caught.value.exchange is None  # the server told it, in its own words
    assert isinstance(caught.value.__cause__, DBAPIError)


async def test_what_has_no_class_of_its_own(store: Store) -> None:
    with pytest.raises(QueryError, match="division by zero") as caught:
        await execute(store, "SELECT 1 / 0")
    assert (caught.value.sqlstate, caught.value.constraint) == ("22012", None)


@pytest.mark.parametrize("count", [100, 20_000], ids=["one statement", "a COPY"])
async def test_an_error_does_not_print_a_batch(store: Store, symbol: Symbol, count: int) -> None:
    rows = [quote(symbol, 12345.75, NOON + timedelta(seconds=number)) for number in range(count)]
    stranger = quote(msgspec.structs.replace(symbol, id=2**31 - 1), 12345.75)
    with pytest.raises(UnknownSymbolError) as caught:
        await store.book_tickers.insert([*rows, stranger])
    printed = "".join(traceback.format_exception(caught.value))
    assert "12345.75" not in printed
    assert max(len(f"{error} {error!r}") for error in chain(caught.value)) < 5_000


@pytest.mark.parametrize("error", [KeyError("mine"), OSError("mine"), TimeoutError("mine")], ids=repr)
async def test_the_callers_own_errors_pass_as_they_are(committed_db: Database, error: Exception) -> None:
    async def fail(store: Store) -> None:
        await store.exchanges.add("MEXC_SPOT")
        raise error

    with pytest.raises(type(error)) as caught:
        await run(committed_db, fail)
    assert caught.value is error


async def test_an_error_of_the_bare_driver(committed_db: Database) -> None:
    engine = create_async_engine(committed_db.engine.url, poolclass=NullPool)
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert isinstance(raw, asyncpg.Connection)
        with pytest.raises(QueryError) as caught, translated():
            await raw.execute("SELECT 1 / 0")
        assert caught.value.sqlstate == "22012"
    await engine.dispose()


@pytest.mark.parametrize(
    "error",
    [
        ValidationError("must be a number", field="bid_price", row=3),
        UnknownSymbolError("BTC/USDT"),
        DuplicateError("twice", sqlstate="23505", constraint="pk_symbols"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_go_through_pools_of_processes(error: ArbstoreError) -> None:
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 # of our own making
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    assert vars(copied) == vars(error)
