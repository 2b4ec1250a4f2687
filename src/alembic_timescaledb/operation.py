"""What all operations share: their function of `op`, what they need of a server, and their line in a revision."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import timedelta
from typing import Any, ClassVar, TypeVar, dataclass_transform

from alembic import op
from alembic.operations import MigrateOperation, Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from alembic_timescaledb import server
from alembic_timescaledb.names import as_sql, escaped, quoted, regclass, spoken
from alembic_timescaledb.server import Edition, Feature

_Op = TypeVar("_Op", bound="TimescaleOp")

log = logging.getLogger("alembic_timescaledb.operations")


def edition_of(context: MigrationContext) -> Edition:
    """Return the edition that the migration runs on.

    It is the one that `context.configure(timescale_edition=...)` names, else the server's, or offline the richest.
    """
    given: Edition | None = context.opts.get("timescale_edition")
    if given is not None:
        return given
    if context.as_sql or context.connection is None:  # under `--sql` there is a connection, which only prints
        return Edition.COMMUNITY
    return server.edition(context.connection)


@dataclass(frozen=True)
class TimescaleOp(MigrateOperation):
    """One operation. `str()` of it tells people what it will do.

    Its fields are the parameters of its function of `op`, but for those left out of comparisons: only `reverse` reads
    these. `former` is the operation that made what this one takes away, as autogenerate found it.

    `words` and `sql` name fields in braces. They may also name `place`, `relation` (an argument of TimescaleDB's
    functions) and `quoted` (the name in other statements).
    """

    name: ClassVar[str]  # of the function of `op`, made from the name of the class
    needs: ClassVar[Feature]
    words: ClassVar[str]
    sql: ClassVar[str]
    removes: ClassVar[bool] = False  # whether it takes away something that the server has
    outside: ClassVar[bool] = False  # whether it must run outside a transaction
    undone_by: ClassVar[type[TimescaleOp] | None] = None  # an operation whose parameters are among its own
    relation_is: ClassVar[str] = "table"  # how the function calls the parameter `relation`
    refused: ClassVar[Mapping[str, str]] = {}  # parameters of former releases, and what to do instead

    relation: str
    schema: str | None = field(default=None, kw_only=True)
    former: TimescaleOp | None = field(default=None, kw_only=True, repr=False, compare=False)
    with_relation: bool = field(default=False, kw_only=True, repr=False, compare=False)  # comes and goes with it

    @property
    def place(self) -> str:
        """The table or view that the operation works on."""
        return f"{self.schema}.{self.relation}" if self.schema else self.relation

    def __str__(self) -> str:
        """Tell what it will do."""
        return self._words()

    def _words(self) -> str:
        return self.words.format_map({**self._values(_as_words), "place": self.place})

    def statements(self, _connection: Connection | None) -> list[str]:
        """Return its SQL, for the server if there is one. Raises DeclarationError if the server could not do it."""
        return [self._filled(self.sql)]

    def _filled(self, template: str, **more: str) -> str:
        names = {"relation": regclass(self.relation, self.schema), "quoted": quoted(self.relation, self.schema)}
        return template.format_map({**self._values(as_sql), **names, **more})

    def _values(self, written: Callable[[object], str]) -> dict[str, str]:
        return {one.name: written(getattr(self, one.name)) for one in self.parameters()}

    def lack(self, edition: Edition) -> str:
        """Return the line for the log that tells what the edition leaves undone."""
        return f"left out, as the {edition} edition has no {self.needs}: {self}"

    def is_ready(self, connection: Connection) -> bool:
        """Whether its relation is a hypertable or an aggregate, not an ordinary table from a poorer edition."""
        return server.is_managed(connection, self.relation, self.schema)

    def reverse(self) -> TimescaleOp:
        """Return the operation that undoes it. Raises ValueError if none does, or if only autogenerate knows it."""
        if self.with_relation:
            return GoneWithRelationOp(self.relation, schema=self.schema, former=self)
        if self.undone_by is not None:
            same = {one.name: getattr(self, one.name) for one in self.undone_by.parameters()}
            return self.undone_by(**same, former=self)
        if self.former is None:
            raise ValueError(
                f"{self.name} of {self.place} cannot be reversed: only autogenerate knows what it took away;"
                " write the operation that brings it back"
            )
        return self.former

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what `alembic check` prints."""
        return (self.name, self.place, str(self))

    @classmethod
    def parameters(cls) -> list[Field[Any]]:
        """Return the fields that are parameters of its function of `op`, the schema last."""
        return sorted((one for one in fields(cls) if one.compare), key=lambda one: one.name == "schema")

    @classmethod
    def signature(cls) -> inspect.Signature:
        """Return the signature of its function of `op`."""
        parameters = []
        for one in cls.parameters():
            name = cls.relation_is if one.name == "relation" else one.name
            kind = inspect.Parameter.KEYWORD_ONLY if one.kw_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
            default = inspect.Parameter.empty if one.default is MISSING else one.default
            parameters.append(inspect.Parameter(name, kind, default=default, annotation=one.type))
        return inspect.Signature(parameters, return_annotation="None")

    @classmethod
    def invoked(cls, operations: Operations, *arguments: Any, **keywords: Any) -> None:
        """Do it, with the arguments of its function of `op`."""
        for name in filter(keywords.__contains__, cls.refused):
            raise TypeError(f"{cls.name}: {name} is not supported: {cls.refused[name]}")
        given = cls.signature().bind(*arguments, **keywords).arguments
        operations.invoke(cls(given.pop(cls.relation_is), **given))

    def arguments(self) -> list[str]:
        """Return the arguments of its function of `op` as Python, without those left at their defaults."""
        given = ((one, getattr(self, one.name)) for one in self.parameters())
        shown = ((one, _python(value)) for one, value in given if value != one.default or one.default is MISSING)
        return [f"{one.name}={value}" if one.kw_only else value for one, value in shown]


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def operation(cls: type[_Op]) -> type[_Op]:
    """Make the class a frozen dataclass, and give `op` a function with its name, fields and documentation."""
    made = dataclass(frozen=True)(cls)
    made.name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__.removesuffix("Op")).lower()
    Operations.register_operation(made.name, "invoked")(made)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = made.signature()
    method: Any = getattr(Operations, made.name)
    method.__signature__ = signature.replace(parameters=[itself, *signature.parameters.values()])
    function: Any = getattr(op, made.name)
    function.__signature__ = signature
    function.__doc__ = method.__doc__ = made.__doc__
    return made


def _as_words(value: object) -> str:
    return spoken(value) if isinstance(value, timedelta) else str(value)


def _python(value: object) -> str:
    if isinstance(value, timedelta):
        return repr(value).removeprefix("datetime.")
    if isinstance(value, str) and "\n" in value:
        return "\n    ".join(map(repr, value.splitlines(keepends=True)))
    return repr(value)


@Operations.implementation_for(TimescaleOp)
def _run(operations: Operations, op: Any) -> None:
    context = operations.get_context()
    edition = edition_of(context)
    if not edition.has(op.needs):
        if not op.removes:
            log.info("%s", op.lack(edition))
        return
    connection = None if context.as_sql else context.connection
    if connection is not None and not op.is_ready(connection):
        if not op.removes:
            log.info("%s is not a hypertable yet, so this waits until it is: %s", op.place, op)
        return
    with context.autocommit_block() if op.outside else nullcontext():
        for statement in op.statements(connection):
            operations.execute(text(escaped(statement)))


@dataclass(frozen=True)
class GoneWithRelationOp(TimescaleOp):
    """Stands for `former`, which goes when its table or view is dropped: it does nothing, and no revision shows it."""

    name = "gone_with_relation"
    needs = Feature.HYPERTABLES
    removes = True

    def _words(self) -> str:
        return f"gone with {self.place}: {self.former}"

    def statements(self, _connection: Connection | None) -> list[str]:
        """Return nothing to do."""
        return []
