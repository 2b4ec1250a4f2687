"""Programs that start: what an import of arbstore, and its command, make them wait for."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks.figures import Aspect, Figure
from benchmarks.measure import Contender, Work, race
from benchmarks.server import Server
from benchmarks.sizes import Sizes


def _program(*command: str) -> Work:
    async def work() -> None:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        if status := await process.wait():
            raise RuntimeError(f"{command} ended with status {status}")

    return work


async def startup(_: Server, sizes: Sizes) -> list[Figure]:
    """Measure fresh processes, the interpreter's own start included on both sides."""
    programs = {
        "import arbstore": (sys.executable, "-c", "import arbstore"),
        "from arbstore import Database": (sys.executable, "-c", "from arbstore import Database"),
        "arbstore --help": (str(Path(sys.executable).parent / "arbstore"), "--help"),
        "import sqlalchemy": (sys.executable, "-c", "import sqlalchemy"),
    }
    times = await race([Contender(name, _program(*command)) for name, command in programs.items()], sizes.runs)
    bounds = {"import arbstore": 2, "from arbstore import Database": None, "arbstore --help": 2}
    return [
        Figure(name=name, ours=times[name], theirs=times["import sqlalchemy"], bound=bound, aspect=Aspect.TIME)
        for name, bound in bounds.items()
    ]
