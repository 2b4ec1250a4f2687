from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from arbstore.database import Store
from arbstore.errors import ValidationError
from arbstore.kinds import KINDS
from arbstore.postgres import upsert as bulk
from arbstore.records import Candle, FundingRate, Record, Snapshot, Symbol, columns
from arbstore.services.series import Series
from tests.records.domains import DOMAINS, FIELDS
from tests.records.samples import REPRESENTATIVES, SAMPLES, SERVICES, TABLES, mapping, place, refusal, with_fields

Row = tuple[dict[str, Any], dict[str, Any] | None]  # as it is given, and as it is to be stored: None if it is bad

QUIET = settings(
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=(Phase.generate, Phase.shrink),
)
anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.decimals(),
    st.text(max_size=30),
    st.characters(categories=("Cs", "Cc")),
    st.binary(max_size=5),
    st.datetimes(timezones=st.none() | st.timezones(), allow_imaginary=False),
    st.dates(),
    st.timedeltas(),
    st.lists(st.integers(), max_size=2),
    st.complex_numbers(),
)


@settings(QUIET, max_examples=500)
@given(field=st.sampled_from([field for field in FIELDS if field[0] in SAMPLES]), value=anything)
def test_any_value_is_refused_by_its_row_and_field_or_stays_what_it_became(
    field: tuple[type[Snapshot], str], value: object
) -> None:
    kind, name = field
    rows = [mapping(SAMPLES[kind]), with_fields(SAMPLES[kind], **{name: value})]
    if (error := refusal(kind, *rows)) is None:
        once = columns(kind, rows)
        assert columns(kind, [dict(zip(once, row, strict=True)) for row in zip(*once.values(), strict=True)]) == once
    elif "is above" in error.reason:
        assert error.row == 1  # a price outside of its candle: the lower of the two is told
    else:
        assert place(error) == (1, name)


def fields_of(kind: type[Record], owner: dict[str, int]) -> dict[str, st.SearchStrategy[tuple[Any, Any]]]:
    """Return for each field what may be given and what is then stored; the owners are registered ones."""
    sample = mapping(SAMPLES[kind])  # type: ignore[index] # callers give snapshots
    found = {
        name: st.just((owner[name], owner[name]))
        if name in owner
        else st.sampled_from(domain.takes or ((sample[name], sample[name]),))
        for name, domain in DOMAINS[kind].items()
    }
    if kind is Candle:  # begins where its timeframe does; which one is kept depends on is_closed
        whole = [pair for pair in DOMAINS[kind]["timestamp"].takes if pair[1] == pair[1].replace(microsecond=0)]
        found |= {"timeframe": st.just(("1S", "1s")), "is_closed": st.just((True, True))}
        found["timestamp"] = st.sampled_from(whole)
    return found


@st.composite
def batches(draw: st.DrawFn, kind: type[Record], owner: dict[str, int]) -> list[Row]:
    pairs = draw(st.lists(st.fixed_dictionaries(fields_of(kind, owner)), max_size=8))
    rows: list[Row] = [
        ({name: pair[0] for name, pair in row.items()}, {name: pair[1] for name, pair in row.items()}) for row in pairs
    ]
    spoiled = draw(st.sets(st.integers(0, 7), max_size=2)) if draw(st.booleans()) else set()
    for number in spoiled & set(range(len(rows))):
        name = draw(st.sampled_from(sorted(DOMAINS[kind])))
        rows[number] = (rows[number][0] | {name: draw(st.sampled_from(DOMAINS[kind][name].refuses))}, None)
    return rows


async def stored(store: Store, kind: type[Snapshot]) -> dict[tuple[Any, ...], dict[str, Any]]:
    rows = (await store.session.execute(select(*KINDS[SERVICES[kind]].columns))).mappings().all()
    return {key(kind, dict(row)): dict(row) for row in rows}


def key(kind: type[Snapshot], row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column.name] for column in TABLES[kind].primary_key)


@pytest.mark.parametrize("copied_from", [1, 100])
@pytest.mark.parametrize("kind", REPRESENTATIVES, ids=lambda kind: kind.__name__)
@settings(QUIET, max_examples=15)
@given(data=st.data())
async def test_a_batch_is_refused_whole_by_a_bad_row_or_reads_back_equal(
    store: Store,
    symbol: Symbol,
    kind: type[Snapshot],
    copied_from: int,
    data: st.DataObject,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bulk, "_WORTH_A_SAVEPOINT", copied_from)
    owner = {name: symbol.exchange_id for name in mapping(SAMPLES[kind]) if name.endswith("exchange_id")}
    batch = data.draw(batches(kind, owner | {"symbol_id": symbol.id}))
    bad = {number for number, (_, expected) in enumerate(batch) if expected is None}
    kept = {key(kind, row): row for _, row in batch if row is not None}
    service: Series[Any, Any] = getattr(store, SERVICES[kind])
    async with store.session.begin_nested() as savepoint:
        if bad:
            with pytest.raises(ValidationError) as caught:
                await service.insert([row for row, _ in batch])
            assert caught.value.row in bad
            assert await stored(store, kind) == {}
        else:
            result = await service.insert([row for row, _ in batch])
            assert await stored(store, kind) == kept
            assert result[:3] == (len(batch), len(kept), len(batch) - len(kept))
        await savepoint.rollback()


@settings(QUIET, max_examples=200)
@given(number=st.floats(-1e50, 1e50))
def test_a_float_becomes_the_decimal_that_it_prints_as(number: float) -> None:
    (stored_rate,) = columns(FundingRate, [with_fields(SAMPLES[FundingRate], funding_rate=number)])["funding_rate"]
    assert stored_rate == Decimal(repr(number))
