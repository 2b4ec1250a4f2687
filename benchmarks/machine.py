"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

_LIBRARIES = (
    "arbstore",
    "asyncpg",
    "sqlalchemy",
    "msgspec",
    "cachetools",
    "advanced-alchemy",
    "adbc-driver-postgresql",
    "pyarrow",
    "polars",
)


def describe() -> dict[str, str]:
    """Return processor, cores, memory, system and the load of the last minute; "unknown" is what it does not tell."""
    return {
        "processor": _value("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": str(os.cpu_count() or "unknown"),
        "memory": _memory(),
        "system": platform.platform(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that are measured."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _LIBRARIES}}


def _memory() -> str:
    kilobytes = _value("/proc/meminfo", "MemTotal").removesuffix(" kB")
    return f"{int(kilobytes) / 2**20:.0f} GiB" if kilobytes else "unknown"


def _value(file: str, name: str) -> str:
    path = Path(file)
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
