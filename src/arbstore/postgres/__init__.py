"""PostgreSQL itself: many rows in, history out, and the keys of the advisory locks."""

from enum import IntEnum


class Lock(IntEnum):
    """The keys of the advisory locks. Each is the CRC-32 of the name in its comment."""

    CLEANUP = 0x0435B548  # arbstore.cleanup: held by the cleanup that is running
    EXCHANGES = 0xC0E1FBB3  # arbstore.exchanges: held while the exchanges follow a list
    MIGRATIONS = 0x9E5A06A0  # arbstore.migrations: a second deploy waits for the first, then finds nothing to do
    RETENTION = 0xDF9AC81C  # arbstore.retention: shared by those that remove rows, exclusive to change a retention
