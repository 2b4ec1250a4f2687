"""Packages that import what they export when it is asked for: nobody waits for what he does not use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def exports(package: str, homes: Mapping[str, Iterable[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` (PEP 562) of the package; `homes` says which of its modules has which names.

    The modules themselves are among its attributes. Type checkers need the imports written out, under TYPE_CHECKING.
    """
    home = {name: module for module, names in homes.items() for name in names}

    def load(name: str) -> Any:
        if name in homes:
            return import_module(f"{package}.{name}")
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(import_module(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, found)  # the next time it is there
        return found

    return load, lambda: sorted({*vars(sys.modules[package]), *homes, *home})
