"""The exception tree, and the one place where what the database reports becomes one of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import exc


class ArbstoreError(Exception):
    """Base of everything arbstore raises on purpose; it can be pickled, for pools of processes.

    `parameter` names the Python parameter whose value is missing or wrong, such as "exchange"; None if there is none.
    """

    def __init__(self, *args: object, parameter: str | None = None) -> None:
        """Keep the name of the parameter beside the message: the command line adds the option that sets it."""
        super().__init__(*args)
        self.parameter = parameter

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep message and facts, whatever the constructor takes."""
        return _remade, (type(self), self.args), self.__dict__


def _remade(kind: type[ArbstoreError], args: tuple[Any, ...]) -> ArbstoreError:
    error = kind.__new__(kind)
    error.args = args
    return error


class ConfigurationError(ArbstoreError):
    """A setting is missing, contradicts another, or names something that is not installed."""


class DatabaseError(ArbstoreError):
    """The database refused or failed; `sqlstate` and `constraint` are what it said, where it said so."""

    def __init__(self, message: str, *, sqlstate: str | None = None, constraint: str | None = None) -> None:
        """Keep the SQLSTATE (five characters) and the violated constraint's name beside the message."""
        super().__init__(message)
        self.sqlstate = sqlstate
        self.constraint = constraint


class DatabaseConnectionError(DatabaseError):
    """The server cannot be reached, refused the login, or the connection was lost."""


class PoolExhaustedError(DatabaseError):
    """No connection became free within the pool's timeout."""


class QueryTimeoutError(DatabaseError):
    """The server cancelled a statement that ran longer than its timeout."""


class QueryError(DatabaseError):
    """A statement failed for a reason that has no class of its own."""


class DuplicateError(DatabaseError):
    """A unique constraint is violated: what is to be added exists already."""


class SchemaOutOfDateError(DatabaseError):
    """A table or column is missing: the database is not at the revision that this version of arbstore needs."""


class CleanupRunningError(ArbstoreError):
    """Another cleanup of this database is under way; it removes what this one would."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("another cleanup of this database is under way")


class DeployRunningError(ArbstoreError):
    """Another deploy of this database, `db upgrade` or `db align`, is under way."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("another deploy of this database is under way: wait for its end, and look again")


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
    """A value is not one that can be stored.

    `row` is the index in the batch (None outside of one), `field` the field's name and `reason` what is wrong
    with it.
    """

    def __init__(self, reason: str, *, field: str, row: int | None = None) -> None:
        """Say where: `row` counts from 0."""
        super().__init__(f"{'' if row is None else f'row {row}, '}{field}: {reason}")
        self.reason = reason
        self.field = field
        self.row = row


class UnknownExchangeError(ArbstoreError, LookupError):
    """No such exchange is registered; `exchange` is what was asked for, None where only the server knows it."""

    def __init__(self, exchange: str | int | None, detail: str = "") -> None:
        """Name the exchange that is missing, or give what the server said of it."""
        name = "an exchange" if exchange is None else f"exchange {exchange!r}"
        super().__init__(f"{name} is not registered{detail}: add it with store.exchanges.add")
        self.exchange = exchange


_SHOWN = 5  # of ids


class UnknownSymbolError(ArbstoreError, LookupError):
    """No such symbol is registered; `symbol` is what was asked for, None where only the server knows it.

    `others` are the ids of symbols of the pair that was asked for which are inactive, or dated contracts.
    """

    def __init__(
        self, symbol: str | int | None, detail: str = "", *, others: Sequence[int] = (), parameter: str | None = None
    ) -> None:
        """Name the symbol that is missing, or give what the server said of it."""
        name = "a symbol" if symbol is None else f"symbol {symbol!r}"
        reason = f"is not registered{detail}: add it with store.symbols.add"
        if others:
            shown = ", ".join(map(str, others[:_SHOWN])) + (" and more" if len(others) > _SHOWN else "")
            reason = f"is inactive, or a dated contract: call history_by_id with one of the ids {shown}"
        super().__init__(f"{name} {reason}", parameter=parameter or ("symbol_id" if others else None))
        self.symbol = symbol
        self.others = tuple(others)


# SQLSTATE classes of PostgreSQL's appendix A: connection exception, invalid authorization, operator intervention.
_UNREACHABLE = ("08", "28", "57P", "3D000", "53300")
_MISSING_OBJECT = ("42P01", "42703")


@contextmanager
def translated() -> Iterator[None]:
    """Turn what SQLAlchemy and the driver raise inside the block into this module's errors, cause chained."""
    try:
        yield
    except Exception as error:
        if (ours := _ours(error)) is None:
            raise
        raise ours from error


def _ours(error: Exception) -> ArbstoreError | None:
    # Not at the top: who has an error of theirs has imported them, and who only names ours need not.
    import asyncpg
    from sqlalchemy import exc

    match error:
        case exc.TimeoutError():
            return PoolExhaustedError(
                "no database connection became free in time: raise ARBSTORE_POOL_SIZE or hold sessions shorter"
            )
        case exc.PendingRollbackError():
            return QueryError("an earlier error has ended this transaction: roll it back, and begin another")
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
    """Return the error of a SQLSTATE, which is empty where there is none; `lost` says that the connection is."""
    kind = _kind(state, lost=lost)
    if kind is SchemaOutOfDateError:
        text += ": deploy the schema with `arbstore db upgrade`"
    return kind(text, sqlstate=state or None, constraint=constraint)


def _kind(state: str, *, lost: bool) -> type[DatabaseError]:
    if state == "57014":
        return QueryTimeoutError
    if lost or state.startswith(_UNREACHABLE):
        return DatabaseConnectionError
    if state == "23505":
        return DuplicateError
    return SchemaOutOfDateError if state in _MISSING_OBJECT else QueryError


def _missing_reference(constraint: str, detail: str) -> ArbstoreError:
    detail = f" ({detail.rstrip('.')})" if detail else ""
    # By the column in it: of a chunk's constraint the end, with the table that is meant, can be cut off.
    if "exchange_id" in constraint:
        return UnknownExchangeError(None, detail)
    if "symbol_id" in constraint:
        return UnknownSymbolError(None, detail)
    return QueryError(f"foreign key {constraint} is violated{detail}", sqlstate="23503", constraint=constraint)
