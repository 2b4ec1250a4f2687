"""The base of all records."""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records. `insert` checks what it is given; a record in your hand is only immutable."""

    ascending: ClassVar[tuple[tuple[str, str], ...]] = ()  # pairs (a, b) of fields that must satisfy a <= b
