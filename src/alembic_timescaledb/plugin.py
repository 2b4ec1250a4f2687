"""The plugin that Alembic finds by the entry point `alembic_timescaledb`, in the group `alembic.plugins`.

An `env.py` turns it on with one argument of `context.configure`:

    autogenerate_plugins=["alembic.autogenerate.*", "alembic_timescaledb"]

Two more are optional: `timescale_edition`, which deploys as if the server were of that edition, and
`timescale_retentions`, what was set on the running server and is no drift (as of `compare` in `comparison`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alembic.runtime.plugins import Plugin
    from alembic.util import PriorityDispatchResult


def setup(plugin: Plugin) -> None:
    """Register the comparisons."""
    from alembic.util import DispatchPriority

    plugin.add_autogenerate_comparator(_schemas, "schema", "timescale_schemas", priority=DispatchPriority.FIRST)
    plugin.add_autogenerate_comparator(_indexes, "table", "timescale_indexes", priority=DispatchPriority.LAST)
    plugin.add_autogenerate_comparator(_declared, "schema", "timescale", priority=DispatchPriority.LAST)


# Alembic calls `setup` while it is itself being imported: what imports Alembic waits for the comparison.
def _schemas(*arguments: Any) -> PriorityDispatchResult:
    from alembic_timescaledb import autogenerate

    return autogenerate.hide_internal_schemas(*arguments)


def _indexes(*arguments: Any) -> PriorityDispatchResult:
    from alembic_timescaledb import autogenerate

    return autogenerate.keep_time_indexes(*arguments)


def _declared(*arguments: Any) -> PriorityDispatchResult:
    from alembic_timescaledb import autogenerate

    return autogenerate.compare_declarations(*arguments)


class _Module(ModuleType):
    # Alembic 1.18 takes what an entry point names for a collection of modules, later releases for the one module.
    def __iter__(self) -> Iterator[ModuleType]:
        yield self


sys.modules[__name__].__class__ = _Module
