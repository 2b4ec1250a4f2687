"""The former name of `alembic_timescaledb`, kept for one release: revisions and models that import it go on working."""

from __future__ import annotations

import importlib
import sys
import warnings

import alembic_timescaledb

_NOW = {
    "aggregate": "aggregate",
    "autogenerate": "autogenerate",
    "catalog": "server",
    "checks": "declare",
    "comparison": "compare",
    "edition": "server",
    "errors": "names",
    "hypertable": "declare",
    "materialized": "server",
    "operations": "operations",
    "plugin": "plugin",
    "progress": "server",
    "retention": "server",
    "state": "server",
    "stepping": "upgrade",
    "sync": "upgrade",
}

warnings.warn("arbstore.timescale is now called alembic_timescaledb: import that", DeprecationWarning, stacklevel=2)

# A module that is in `sys.modules` is found there, so `import arbstore.timescale.operations` needs no file.
for _former, _name in _NOW.items():
    _module = importlib.import_module(f"alembic_timescaledb.{_name}")
    sys.modules[f"{__name__}.{_former}"] = globals()[_former] = _module


def __getattr__(name: str) -> object:
    return getattr(alembic_timescaledb, name)
