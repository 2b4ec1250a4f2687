"""The rows of kinds agree with records, models and services."""

from __future__ import annotations

from typing import get_type_hints

import pytest
from sqlalchemy import Numeric
from sqlalchemy.ext.asyncio import AsyncSession

from alembic_timescaledb import hypertables
from arbstore import Store
from arbstore.errors import ValidationError
from arbstore.kinds import KINDS
from arbstore.models import Base
from arbstore.services.series import Series


def test_a_key_begins_with_the_owner_and_its_parts() -> None:
    for kind in KINDS.values():
        first = [kind.owner, *(part.column for part in kind.parts)]
        assert list(kind.table.primary_key.columns.keys())[: len(first) + 1] == [*first, "timestamp"]


def test_owners_are_the_foreign_keys() -> None:
    for kind in KINDS.values():
        (*found,) = (key for column in kind.table.c for key in column.foreign_keys)
        assert {key.parent.name: key.column.table.name for key in found} == {
            name: owner.value for name, owner in kind.owners.items()
        }


def test_decimals_are_the_numeric_columns_and_have_a_scale() -> None:
    for kind in KINDS.values():
        numeric = {column.name for column in kind.table.c if type(column.type) is Numeric}
        assert kind.decimals == numeric
        assert bool(kind.scale) == bool(numeric)


def test_the_column_that_decides_which_row_is_newer_is_there() -> None:
    for kind in KINDS.values():
        assert kind.newer in kind.table.c


def test_every_time_series_table_has_a_row() -> None:
    tables = {table.name for table, _ in hypertables(Base.metadata)}
    assert {kind.table.name for kind in KINDS.values()} == tables


def test_type_checkers_know_every_kind_of_a_store() -> None:
    typed = {name for name, hint in get_type_hints(Store).items() if "Series" in str(hint) or issubclass(hint, Series)}
    assert typed == KINDS.keys()  # for a kind without its line, `Store.series` has the type


async def test_a_store_has_a_service_for_every_kind_and_no_other_name() -> None:
    store = Store(AsyncSession())
    for name, kind in KINDS.items():
        service = getattr(store, name)
        assert service.kind is kind
        assert service is getattr(store, name)
        assert type(store.series(kind)) is type(service)
    with pytest.raises(ValidationError, match="must be one of book_tickers, trades"):
        store.series("nonsense")
    with pytest.raises(AttributeError, match="'Store' object has no attribute 'nonsense'"):
        store.nonsense  # type: ignore[attr-defined] # noqa: B018 # that type checkers see it too is tested with it
