"""The base of all records."""

from __future__ import annotations

from typing import ClassVar

import msgspec


# Records hold plain values and so never a cycle: the collector need not walk millions of them.
class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of all records. `insert` checks what it is given; a record in your hand is only immutable."""

    ascending: ClassVar[tuple[tuple[str, str], ...]] = ()  # pairs (a, b) of fields that must satisfy a <= b
