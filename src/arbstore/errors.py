"""The errors that arbstore raises, and the one place that makes them from the errors of SQLAlchemy and asyncpg."""

from __future__ import annotations

import copyreg
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import exc


class ArbstoreError(Exception):
    """Base of all errors that arbstore raises on purpose. They can be pickled and so cross process boundaries.

    `parameter` names the Python parameter whose value is missing or wrong, such as "exchange"; None if there is none.
    """

    def __init__(self, *args: object, parameter: str | None = None) -> None:
        """Keep the parameter's name beside the message: the command line adds the option that sets it."""
        super().__init__(*args)
        self.parameter = parameter

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the message and the attributes, without calling the constructor again."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]  # no stub


class ConfigurationError(ArbstoreError):
    """A setting is missing or invalid, or an optional package is not installed."""


class DatabaseError(ArbstoreError):
    """The database reported an error, or cannot be reached.

    `sqlstate` is PostgreSQL's error code of five characters, `constraint` the name of the violated constraint.
    Either is None if the server did not report it.
    """

    def __init__(self, message: str, *, sqlstate: str | None = None, constraint: str | None = None) -> None:
        """Take the message and, if the server reported them, the error code and the constraint."""
        super().__init__(message)
        self.sqlstate = sqlstate
        self.constraint = constraint


class DatabaseConnectionError(DatabaseError):
    """The server cannot be reached, it refused the login, or the connection was lost."""


class PoolExhaustedError(DatabaseError):
    """No connection of the pool became free within `pool_timeout`."""


class QueryTimeoutError(DatabaseError):
    """The server cancelled a statement that ran longer than `statement_timeout`."""


class QueryError(DatabaseError):
    """A statement failed for a reason that no other class stands for."""


class DuplicateError(DatabaseError):
    """The row to add exists already: it violates a unique constraint."""


class SchemaOutOfDateError(DatabaseError):
    """A table or column is missing: the schema of the database is older than this version of arbstore needs."""


class CleanupRunningError(ArbstoreError):
    """Another cleanup of this database is running. It removes the same rows, so nothing is left to do."""

    def __init__(self) -> None:
        """Take nothing: the message is always the same."""
        super().__init__("another cleanup of this database is under way: wait until it ends")


class DeployRunningError(ArbstoreError):
    """Another deployment or alignment of this database is running."""

    def __init__(self) -> None:
        """Take nothing: the message is always the same."""
        super().__init__("another deployment of this database is under way: wait until it ends, then try again")


class AlignmentError(DatabaseError):
    """A step of an alignment failed and was rolled back. The steps before it are done; a second run goes on from there.

    `step` is the step that failed, `done` counts the steps before it, and `left` those that remain, with this one.
    """

    def __init__(self, step: str, reason: str, *, done: int, left: int, sqlstate: str | None = None) -> None:
        """Say which step failed, why, and how to go on."""
        super().__init__(
            f"{step}: {reason}; {done} steps are done, {left} are left: run `arbstore db align` again",
            sqlstate=sqlstate,
        )
        self.step = step
        self.done = done
        self.left = left


class ValidationError(ArbstoreError, ValueError):
    """A value cannot be stored.

    `reason` says what is wrong, `field` names the field, or the violated check constraint if only the server knows.
    `row` is the index in the batch, from 0. It is None if the value was not part of a batch.
    """

    def __init__(self, reason: str, *, field: str, row: int | None = None) -> None:
        """Take what is wrong and where."""
        super().__init__(f"{'' if row is None else f'row {row}, '}{field}: {reason}")
        self.reason = reason
        self.field = field
        self.row = row


class UnknownExchangeError(ArbstoreError, LookupError):
    """An exchange is not registered. `exchange` is its enum or id, or None if only the server reported it."""

    def __init__(self, exchange: str | int | None, detail: str = "") -> None:
        """Take the exchange; `detail` adds what the server reported."""
        name = "an exchange" if exchange is None else f"exchange {exchange!r}"
        super().__init__(f"{name} is not registered{detail}: add it with store.exchanges.add")
        self.exchange = exchange


_SHOWN = 5  # ids in a message


class UnknownSymbolError(ArbstoreError, LookupError):
    """A symbol is not registered, or a pair has no active symbol.

    `symbol` is the pair or the id, or None if only the server reported it. `others` are the ids of the pair's symbols
    that a look-up skips: inactive ones, and dated contracts when no expiry was given.
    """

    def __init__(
        self, symbol: str | int | None, detail: str = "", *, others: Sequence[int] = (), parameter: str | None = None
    ) -> None:
        """Take the symbol and the ids that were skipped; `detail` adds why it is missing."""
        name = "a symbol" if symbol is None else f"symbol {symbol!r}"
        problem = f"is not registered{detail}: add it with store.symbols.add"
        if others:
            ids = ", ".join(map(str, others[:_SHOWN])) + (" and more" if len(others) > _SHOWN else "")
            problem = f"is inactive or a dated contract: call history_by_id with one of the ids {ids}"
        super().__init__(f"{name} {problem}", parameter=parameter or ("symbol_id" if others else None))
        self.symbol = symbol
        self.others = tuple(others)


# The first row whose beginning matches decides; the codes are in appendix A of PostgreSQL's manual.
_KINDS: tuple[tuple[str, type[DatabaseError]], ...] = (
    ("08", DatabaseConnectionError),  # connection exception
    ("28", DatabaseConnectionError),  # the login was refused
    ("3D000", DatabaseConnectionError),  # no such database
    ("53300", DatabaseConnectionError),  # too many connections
    ("57014", QueryTimeoutError),  # the statement was cancelled
    ("57P", DatabaseConnectionError),  # the server shuts down, or is not ready
    ("23505", DuplicateError),  # unique constraint
    ("42P01", SchemaOutOfDateError),  # no such table
    ("42703", SchemaOutOfDateError),  # no such column
    ("42883", SchemaOutOfDateError),  # no such function
)


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of SQLAlchemy and asyncpg inside the block into arbstore's own, with the original as the cause."""
    try:
        yield
    except Exception as error:
        if (ours := _ours(error)) is None:
            raise
        raise ours from error


def _ours(error: Exception) -> ArbstoreError | None:
    # Imported here, so that importing these classes stays cheap.
    import asyncpg
    from sqlalchemy import exc

    match error:
        case exc.TimeoutError():
            return PoolExhaustedError(
                "no database connection became free in time: raise ARBSTORE_POOL_SIZE or hold sessions shorter"
            )
        case exc.PendingRollbackError():
            return QueryError("an earlier error has ended this transaction: roll it back, then begin another")
        case exc.DBAPIError():
            return _from_driver(driver_error(error), lost=error.connection_invalidated)
        case asyncpg.PostgresError() | asyncpg.InterfaceError():
            return _from_driver(error, lost=isinstance(error, asyncpg.InterfaceError))
        case OSError():
            return DatabaseConnectionError(f"the database cannot be reached: {str(error) or 'timed out'}")
    return None


def driver_error(error: exc.DBAPIError) -> BaseException:
    """Return the driver's own error inside SQLAlchemy's."""
    orig = error.orig
    return (orig.__cause__ or orig) if orig is not None else error


def _from_driver(error: BaseException, *, lost: bool) -> ArbstoreError:
    from asyncpg import ClientConfigurationError

    if isinstance(error, ClientConfigurationError):
        return ConfigurationError(str(error))
    state: str = getattr(error, "sqlstate", None) or ""
    constraint: str | None = getattr(error, "constraint_name", None)
    detail: str = getattr(error, "detail", None) or ""
    text = f"{error}: {detail}" if detail else str(error)
    if state == "23503":
        return _missing_reference(constraint or "", detail)
    if state == "23514":
        return ValidationError(text, field=constraint or "?")
    return database_error(text, state, constraint=constraint, lost=lost)


def database_error(text: str, state: str, *, constraint: str | None = None, lost: bool = False) -> DatabaseError:
    """Return the error for a SQLSTATE, empty if there is none; `lost` means that the connection is gone."""
    otherwise = DatabaseConnectionError if lost else QueryError
    kind = next((kind for prefix, kind in _KINDS if state.startswith(prefix)), otherwise)
    if kind is SchemaOutOfDateError:
        text += ": deploy the schema with `arbstore db upgrade`"
    return kind(text, sqlstate=state or None, constraint=constraint)


def _missing_reference(constraint: str, detail: str) -> ArbstoreError:
    detail = f" ({detail.rstrip('.')})" if detail else ""
    # The column's name decides: TimescaleDB prefixes a chunk's constraint, and a long name loses its end.
    if "exchange_id" in constraint:
        return UnknownExchangeError(None, detail)
    if "symbol_id" in constraint:
        return UnknownSymbolError(None, detail)
    return QueryError(f"foreign key {constraint} is violated{detail}", sqlstate="23503", constraint=constraint)
