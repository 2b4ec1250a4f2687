"""The command `arbstore`: parses what is typed, calls one function of the library, and prints what it returns."""

from __future__ import annotations

import sys

_EXTRA = ("typer", "rich", "click")  # what `pip install 'arbstore[cli]'` adds


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from arbstore.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write("arbstore: the command line is not installed: pip install 'arbstore[cli]'\n")
        raise SystemExit(3) from error  # as `command.UNREADY`, which cannot be imported here
    app()
