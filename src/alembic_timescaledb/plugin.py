"""The plugin that Alembic finds by the entry point `alembic_timescaledb`, in the group `alembic.plugins`.

An `env.py` turns it on by `autogenerate_plugins=["alembic.autogenerate.*", "alembic_timescaledb"]`. Two more arguments
of `context.configure` are optional. `timescale_edition` deploys as if the server were of that edition.
`timescale_retentions` names retentions that were set on the running server, as `compare` takes them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alembic.runtime.plugins import Plugin


def setup(plugin: Plugin) -> None:
    """Register the comparisons."""
    from alembic.util import DispatchPriority

    first, last = DispatchPriority.FIRST, DispatchPriority.LAST
    plugin.add_autogenerate_comparator(_later("hide_internal_schemas"), "schema", "timescale_schemas", priority=first)
    plugin.add_autogenerate_comparator(_later("keep_time_indexes"), "table", "timescale_indexes", priority=last)
    plugin.add_autogenerate_comparator(_later("compare_declarations"), "schema", "timescale", priority=last)


def _later(name: str) -> Callable[..., Any]:
    """Return the comparison; Alembic calls `setup` while it is imported, so what imports Alembic must wait."""

    def compare(*arguments: Any) -> Any:
        from alembic_timescaledb import autogenerate

        return getattr(autogenerate, name)(*arguments)

    return compare


class _Module(ModuleType):
    # Alembic 1.18 takes what an entry point names for a collection of modules, later releases for the one module.
    def __iter__(self) -> Iterator[ModuleType]:
        yield self


sys.modules[__name__].__class__ = _Module
