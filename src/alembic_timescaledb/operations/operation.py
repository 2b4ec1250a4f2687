"""What all operations share: what they need of a server, their SQL, and how a revision writes them."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import MISSING, dataclass, fields
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

from alembic.operations import MigrateOperation, Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from alembic_timescaledb import server
from alembic_timescaledb.server import Edition, Feature

_Op = TypeVar("_Op", bound=MigrateOperation)

log = logging.getLogger("alembic_timescaledb.operations")


def edition_of(context: MigrationContext) -> Edition:
    """Return the edition that the migration runs on.

    It is what `context.configure(timescale_edition=...)` said, else what the server has, else, offline, the richest.
    """
    given: Edition | None = context.opts.get("timescale_edition")
    if given is not None:
        return given
    if context.as_sql or context.connection is None:  # under `--sql` there is one, which only prints
        return Edition.COMMUNITY
    return server.edition(context.connection)


class TimescaleOp(MigrateOperation, ABC):
    """One operation: a dataclass whose positional fields and keywords are those of its function of `op`.

    `str()` of it says to people what it does, as a change to come.
    """

    name: ClassVar[str]  # of the function of `op`
    needs: ClassVar[Feature]
    removes: ClassVar[bool] = False  # whether it takes away what the server has
    outside: ClassVar[bool] = False  # whether no transaction can hold it

    relation: str
    schema: str | None

    @property
    def place(self) -> str:
        """The table or view that it is about."""
        return f"{self.schema}.{self.relation}" if self.schema else self.relation

    @abstractmethod
    def statements(self) -> list[str]:
        """Return its SQL."""

    def statements_on(self, _connection: Connection) -> list[str]:
        """Return its SQL for a server as it is. Raises DeclarationError where it could not be done."""
        return self.statements()

    def lack(self, edition: Edition) -> str:
        """Return what the edition leaves undone, as a line for the log."""
        return f"left out, as the {edition} edition has no {self.needs}: {self}"

    def is_ready(self, connection: Connection) -> bool:
        """Whether what it works on is there: a table deployed on a poorer edition may be an ordinary one."""
        return server.is_managed(connection, self.relation, self.schema)

    @abstractmethod
    def reverse(self) -> TimescaleOp:
        """Return what undoes it. Raises ValueError where nothing does, or autogenerate alone knows what was there."""

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what `alembic check` prints."""
        return (self.name, self.place, str(self))

    def arguments(self) -> list[str]:
        """Return its arguments as Python, those left at their defaults and those that only `reverse` reads out."""
        found = []
        for field in fields(self):  # type: ignore[arg-type] # each operation is a dataclass
            value = getattr(self, field.name)
            if field.kw_only and field.compare:
                if value != field.default or field.default is MISSING:
                    found.append(f"{field.name}={_python(value)}")
            elif field.compare:
                found.append(_python(value))
        return found


def _python(value: object) -> str:
    if isinstance(value, timedelta):
        parts = {"days": value.days, "seconds": value.seconds, "microseconds": value.microseconds}
        return f"timedelta({', '.join(f'{unit}={count}' for unit, count in parts.items() if count)})"
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
            log.info("%s is no hypertable yet, so this waits until it is: %s", op.place, op)
        return
    with context.autocommit_block() if op.outside else nullcontext():
        for statement in op.statements() if connection is None else op.statements_on(connection):
            operations.execute(text(server.escaped(statement)))


@dataclass(frozen=True)
class GoneWithRelationOp(TimescaleOp):
    """Stands for what goes when its table or view is dropped: nothing to do, and no line of a revision."""

    name = "gone_with_relation"
    needs = Feature.HYPERTABLES
    removes = True

    former: TimescaleOp

    @property
    def place(self) -> str:
        """The table or view that it is about."""
        return self.former.place

    def __str__(self) -> str:
        """Say it."""
        return f"gone with {self.former.place}: {self.former}"

    def statements(self) -> list[str]:
        """Return no SQL."""
        return []

    def reverse(self) -> TimescaleOp:
        """Return what was there."""
        return self.former


def known(op: TimescaleOp, former: _Op | None) -> _Op:
    """Return the operation that undoes `op`, as autogenerate found it; by hand there is none to know."""
    if former is None:
        raise ValueError(f"{op.name} of {op.place} cannot be reversed: what it took away is not known")
    return former
