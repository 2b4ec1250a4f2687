"""How busy the machine's processors are, as Linux counts it."""

from __future__ import annotations

import os
from pathlib import Path

_STAT = Path("/proc/stat")


def busy_seconds() -> float:
    """Return the seconds that all processors together have worked; 0 where the system does not say."""
    if not _STAT.exists():
        return 0.0
    # user, nice, system, idle, waiting for I/O, interrupts, soft interrupts, taken by the hypervisor: in ticks
    user, nice, system, _, _, interrupts, soft, _ = map(int, _STAT.read_text().split()[1:9])
    return float(user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")
