"""PostgreSQL itself: the engine, many rows in, and history out."""
