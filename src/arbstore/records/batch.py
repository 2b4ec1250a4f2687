"""The base of all records, and `columns`, which checks a batch of them as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from operator import attrgetter, is_, le
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from arbstore.errors import ValidationError
from arbstore.records.rules import Rule


class _RecordMeta(msgspec.StructMeta):
    """Gives a struct the fields of bases that are not structs, because msgspec allows only one base with fields."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Any:
        """Make the struct."""
        mixins = (base.__annotations__ for base in bases if not isinstance(base, msgspec.StructMeta))
        for fields in mixins:
            namespace["__annotations__"] = fields | namespace.get("__annotations__", {})
        return super().__new__(cls, name, bases, namespace, **options)


# Records hold plain values and never form a cycle, so the garbage collector need not walk millions of them.
class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False, metaclass=_RecordMeta):
    """Base of all records. A record is immutable; `insert` checks its values, the constructor does not."""

    ascending: ClassVar[tuple[tuple[str, str], ...]] = ()  # pairs (a, b) of fields that must satisfy a <= b


class _Field(NamedTuple):
    name: str
    rule: Rule
    optional: bool
    default: Any  # msgspec.NODEFAULT if the field is required


@lru_cache(maxsize=64)
def _fields(kind: type[Record]) -> Mapping[str, _Field]:
    hints = get_type_hints(kind, include_extras=True)
    return MappingProxyType(
        {
            field.name: _Field(field.name, _rule(hints[field.name]), type(None) in _members(hint), field.default)
            for field in msgspec.structs.fields(kind)
            for hint in (hints[field.name],)
        }
    )


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(get_args(hint)[0])


def _rule(hint: Any) -> Rule:
    assert get_origin(hint) is Annotated, hint  # noqa: S101 # a record without a rule is a mistake of ours
    return next(part for part in hint.__metadata__ if isinstance(part, Rule))


def columns(kind: type[Record], rows: Iterable[Record | Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return one list for each field of `kind`: checked values in the form that is stored, in the order of `rows`.

    A row is a record of that kind or a mapping with its fields. The first bad value raises ValidationError with its
    row, field and reason. Fields are checked in the order of the record.
    """
    batch = rows if isinstance(rows, list | tuple) else list(rows)
    fields = _fields(kind)
    table = {
        field.name: _checked(field, values)
        for field, values in zip(fields.values(), _raw(kind, fields, batch), strict=True)
    }
    for low, high in kind.ascending:
        _check_ascending(low, high, table)
    return table


def _raw(kind: type[Record], fields: Mapping[str, _Field], batch: Sequence[Any]) -> Iterable[Sequence[Any]]:
    if {kind}.issuperset(map(type, batch)) or all(isinstance(row, kind) for row in batch):
        return [list(map(attrgetter(name), batch)) for name in fields]
    return zip(*(_row(kind, fields, row, number) for number, row in enumerate(batch)), strict=True)


def _row(kind: type[Record], fields: Mapping[str, _Field], row: Any, number: int) -> list[Any]:
    if isinstance(row, kind):
        return [getattr(row, name) for name in fields]
    if not isinstance(row, Mapping):
        raise ValidationError(f"must be a {kind.__name__} or a mapping, is {type(row).__name__}", field="*", row=number)
    for name in row:
        if name not in fields:
            raise ValidationError(
                f"is not a field of {kind.__name__}, whose fields are {', '.join(fields)}", field=str(name), row=number
            )
    return [row.get(name, field.default) for name, field in fields.items()]


def _checked(field: _Field, values: Sequence[Any]) -> list[Any]:
    given = values
    if field.optional and (missing := sum(map(is_, values, repeat(None)))):
        given = [] if missing == len(values) else [value for value in values if value is not None]
    if field.rule.fits(given):
        return values if isinstance(values, list) else list(values)
    return [_parsed(field, value, number) for number, value in enumerate(values)]


def _parsed(field: _Field, value: Any, number: int) -> Any:
    if value is msgspec.NODEFAULT:
        raise ValidationError("is missing", field=field.name, row=number)
    if value is None and field.optional:
        return None
    try:
        return field.rule.parse(value)
    except ValueError as error:
        raise ValidationError(str(error), field=field.name, row=number) from error


def _check_ascending(low: str, high: str, table: Mapping[str, Sequence[Any]]) -> None:
    if all(map(le, table[low], table[high])):
        return
    for number, (below, above) in enumerate(zip(table[low], table[high], strict=True)):
        if below > above:
            raise ValidationError(f"{below} is above {high} {above}", field=low, row=number)


def parse(kind: type[Record], field: str, value: object, *, argument: str) -> Any:
    """Return one value as the field of `kind` stores it; raise ValidationError that names `argument`."""
    try:
        return _fields(kind)[field].rule.parse(value)
    except ValueError as error:
        raise ValidationError(str(error), field=argument) from error
