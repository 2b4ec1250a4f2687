"""The one error of declarations; the server's own errors pass through."""

from __future__ import annotations


class DeclarationError(ValueError):
    """What a model declares cannot work on TimescaleDB; the message says what, where and what to do."""
