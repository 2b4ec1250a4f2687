"""What a command that fails says, and the code it exits with: one mapping from exception to code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from arbstore import errors

BEHIND = 1
UNREADY = 3
_UNKNOWN, _FAULT, _INTERRUPTED, _PIPE = 4, 70, 130, 141

# The first that fits: the special before the general.
_CODES: dict[type[BaseException], int] = {
    errors.UnknownExchangeError: _UNKNOWN,
    errors.UnknownSymbolError: _UNKNOWN,
    errors.ConfigurationError: UNREADY,
    errors.DatabaseConnectionError: UNREADY,
    errors.PoolExhaustedError: UNREADY,
    errors.SchemaOutOfDateError: UNREADY,
    errors.ArbstoreError: 1,
    BrokenPipeError: _PIPE,
    OSError: 1,
    KeyboardInterrupt: _INTERRUPTED,
    Exception: _FAULT,
}

# Each fits the 80 columns of `arbstore --help`.
MEANINGS = {
    0: "done",
    1: "refused by a file's data or by the database; `db current`: schema behind",
    2: "used wrongly: no such option, or a value that cannot be read",
    UNREADY: "misconfigured, no database reachable, or its schema not deployed",
    _UNKNOWN: "an exchange or symbol that is not registered",
    _FAULT: "a fault of arbstore itself",
    _INTERRUPTED: "interrupted (Ctrl-C)",
    _PIPE: "the reader of the output has gone",
}


@contextmanager
def reported(*, debug: bool) -> Iterator[None]:
    """Turn what goes wrong inside into one line on stderr and an exit code; `debug` adds the traceback."""
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise  # they are typer's to report
    except (Exception, KeyboardInterrupt) as error:
        code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
        if debug:
            traceback.print_exc()
        if code == _PIPE:
            _detach_stdout()
        else:
            typer.echo(f"arbstore: {_message(error, code)}", err=True)
        raise typer.Exit(code) from error


def _message(error: BaseException, code: int) -> str:
    if code == _INTERRUPTED:
        return "interrupted"
    if code == _FAULT:
        return _line(f"fault: {type(error).__name__}: {error} (--debug shows where)")
    return _line(str(error) or type(error).__name__)


def _line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def _detach_stdout() -> None:
    """Nobody reads stdout any more: let Python's last flush go nowhere instead of failing again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
