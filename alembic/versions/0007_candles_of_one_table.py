"""One table of candles with their origin, and a ledger of what is made into candles before its rows go."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

from alembic_timescaledb.operations import edition_of  # and gives op its hypertables

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

log = logging.getLogger("alembic.runtime.migration")

LOCK = 0x9E5A06A0  # that of deploys: it must outlast the commits of a move
RAW = {"trades": "trade_snapshots", "quotes": "book_ticker_snapshots"}
KEEP_FOR = timedelta(days=3)
EVERY = timedelta(minutes=5)
MOVING = "candles_moving"  # the table that is being filled

# The candles of one symbol, of rows in [since, until). PostgreSQL puts it into the query that calls it.
CANDLES_OF = """
CREATE FUNCTION arbstore_candles_of_{origin}(
    symbol integer, since timestamptz, until timestamptz, length interval
) RETURNS TABLE (
    "timestamp" timestamptz, open float8, high float8, low float8, close float8,
    volume float8, vwap float8, num_trades bigint, created_at timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT date_bin(length, timestamp, TIMESTAMPTZ '2001-01-01 00:00+00'),
        (array_agg({price} ORDER BY {order}))[1], max({price}), min({price}),
        (array_agg({price} ORDER BY {order}))[count(*)], {volume}, {vwap}, {count}, max(created_at)
    FROM {table}
    WHERE symbol_id = symbol AND timestamp >= since AND timestamp < until
    GROUP BY 1;
END
"""
OF_TRADES = CANDLES_OF.format(
    origin="trades",
    table="trade_snapshots",
    price="price",
    order="timestamp, trade_id",
    volume="sum(quantity)",
    vwap="CASE WHEN sum(quantity) > 0 THEN nullif(sum(price * quantity) / sum(quantity), 0) END",
    count="count(*)",
)
OF_QUOTES = CANDLES_OF.format(
    origin="quotes",
    table="book_ticker_snapshots",
    price="(bid_price + ask_price) / 2",
    order="timestamp",
    volume="NULL::float8",
    vwap="NULL::float8",
    count="NULL::bigint",
)
# The one statement that makes minutes: those of all symbols in [since, until), or those that late rows have touched.
# A minute whose rows are gone stays as it is.
STORE = """
CREATE FUNCTION arbstore_store_minutes(which text, since timestamptz, until timestamptz, touched boolean)
RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $store$
BEGIN
    EXECUTE format($make$
        WITH gone AS (
            DELETE FROM late_minutes WHERE %4$L AND origin = %1$L AND minute >= $1 AND minute < $2
            RETURNING symbol_id, minute
        )
        INSERT INTO candles AS c (
            symbol_id, origin, timeframe, timestamp, open, high, low, close, volume, vwap, num_trades, created_at
        )
        SELECT s.id, %1$L, '1m', m.*
        FROM %2$s s, LATERAL arbstore_candles_of_%1$s(s.id, $1, $2, INTERVAL '1 minute') m %3$s
        ORDER BY s.id, m.timestamp
        ON CONFLICT (symbol_id, origin, timeframe, timestamp) DO UPDATE SET
            open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
            volume = excluded.volume, vwap = excluded.vwap, num_trades = excluded.num_trades,
            created_at = excluded.created_at
        WHERE NOT c.rows_gone
    $make$,
        which,
        CASE WHEN touched THEN '(SELECT DISTINCT symbol_id AS id FROM gone)' ELSE 'symbols' END,
        CASE WHEN touched THEN 'WHERE (s.id, m.timestamp) IN (SELECT symbol_id, minute FROM gone)' ELSE '' END,
        touched
    ) USING since, until;
    UPDATE ledger SET is_frozen = false WHERE origin = which AND since < dropped_before AND is_frozen;
END
$store$
"""
# Make the next hour of minutes; whether there was one.
MAKE = """
CREATE FUNCTION arbstore_make_minutes(which text) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $make$
DECLARE
    known ledger;
    oldest timestamptz;
    until timestamptz;
BEGIN
    SELECT * INTO STRICT known FROM ledger WHERE origin = which FOR UPDATE;
    EXECUTE format($first$
        SELECT date_trunc('minute', min(r.timestamp), 'UTC') FROM symbols s, LATERAL (
            SELECT timestamp FROM %I
            WHERE symbol_id = s.id AND timestamp >= $1 AND timestamp < $2 ORDER BY timestamp LIMIT 1
        ) r
    $first$, known.table_name) INTO oldest USING known.made_until, known.closed_until;
    until := LEAST(coalesce(oldest + INTERVAL '1 hour', known.closed_until), known.closed_until);
    IF oldest IS NOT NULL THEN
        PERFORM arbstore_store_minutes(which, oldest, until, false);
    END IF;
    UPDATE ledger SET made_until = until WHERE origin = which;
    RETURN oldest IS NOT NULL;
END
$make$
"""
# Make the minutes again that late rows have touched: the first hour of them in [since, until); whether there were some.
REMAKE = """
CREATE FUNCTION arbstore_remake_minutes(which text, since timestamptz, until timestamptz) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $remake$
DECLARE
    before timestamptz;
    first timestamptz;
    last timestamptz;
BEGIN
    SELECT LEAST(until, made_until) INTO STRICT before FROM ledger WHERE origin = which FOR UPDATE;
    SELECT min(minute) INTO first FROM late_minutes WHERE origin = which AND minute >= since AND minute < before;
    SELECT max(minute) INTO last FROM late_minutes
    WHERE origin = which AND minute >= first AND minute < LEAST(before, first + INTERVAL '1 hour');
    IF first IS NOT NULL THEN
        PERFORM arbstore_store_minutes(which, first, last + INTERVAL '1 minute', true);
    END IF;
    RETURN first IS NOT NULL;
END
$remake$
"""
# Let rows that are inserted from now on leave marks for minutes that have ended. With `alone`, writers of the table are
# kept out until the transaction ends. Otherwise those that are writing now must end before the minutes are made.
CLOSE = """
CREATE FUNCTION arbstore_close_minutes(which text, alone boolean) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $close$
DECLARE
    raw text;
BEGIN
    SELECT table_name INTO STRICT raw FROM ledger WHERE origin = which;
    IF alone THEN
        EXECUTE format('LOCK TABLE ONLY %I IN SHARE MODE', raw);
    END IF;
    UPDATE ledger SET closed_until = GREATEST(
        closed_until, date_trunc('minute', clock_timestamp() - INTERVAL '1 minute', 'UTC')
    ) WHERE origin = which;
END
$close$
"""
# The other transactions that have written to the table and are open. Every insert takes its lock before it sees the
# ledger: so those that took it later see how far minutes are closed.
WRITERS = """
CREATE FUNCTION arbstore_writers(which text) RETURNS text[]
LANGUAGE sql VOLATILE SET search_path FROM CURRENT AS $writers$
    SELECT coalesce(array_agg(DISTINCT l.virtualtransaction), '{}') FROM ledger, pg_locks l
    WHERE origin = which AND l.relation = to_regclass(quote_ident(table_name)) AND l.mode = 'RowExclusiveLock'
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.pid IS DISTINCT FROM pg_backend_pid()
$writers$
"""
# From now on rows are too late for the minutes of a range: those that are there are about to go.
GONE = """
CREATE FUNCTION arbstore_rows_gone(which text, since timestamptz, until timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $gone$
BEGIN
    EXECUTE 'UPDATE candles SET rows_gone = true WHERE origin = $1 AND timeframe = ''1m'' AND NOT rows_gone'
        ' AND symbol_id = ANY (ARRAY(SELECT id FROM symbols)) AND timestamp >= $2 AND timestamp < $3'
    USING which, since, until;
    UPDATE ledger SET dropped_before = GREATEST(dropped_before, until), is_frozen = true WHERE origin = which;
END
$gone$
"""
IS_HYPERTABLE = """
CREATE FUNCTION arbstore_is_hypertable(name text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $is$
BEGIN
    IF to_regclass('timescaledb_information.hypertables') IS NULL THEN
        RETURN false;
    END IF;
    RETURN EXISTS (
        SELECT FROM timescaledb_information.hypertables
        WHERE to_regclass(format('%I.%I', hypertable_schema, hypertable_name)) = to_regclass(quote_ident(name))
    );
END
$is$
"""
# Get ready to delete the rows before a moment from an ordinary table. Rows that come from now on are too late for
# minutes that have a candle; those that are being written are waited for.
FREEZE = """
CREATE FUNCTION arbstore_freeze_minutes(which text, before timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '500ms' AS $freeze$
DECLARE
    raw CONSTANT text := (SELECT table_name FROM ledger WHERE origin = which);
    oldest timestamptz;
BEGIN
    EXECUTE format('LOCK TABLE ONLY %I IN SHARE MODE', raw);
    WHILE arbstore_remake_minutes(which, '-infinity', before) LOOP
    END LOOP;
    EXECUTE format($oldest$
        SELECT date_trunc('minute', min(r.timestamp), 'UTC') FROM symbols s, LATERAL (
            SELECT timestamp FROM %I WHERE symbol_id = s.id ORDER BY timestamp LIMIT 1
        ) r
    $oldest$, raw) INTO oldest;
    PERFORM arbstore_rows_gone(which, coalesce(oldest, before), before);
END
$freeze$
"""
# Delete rows before a moment that are in their candles: at most so many, one symbol after the other.
DELETE = """
CREATE FUNCTION arbstore_delete_rows(which text, before timestamptz, most integer) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $delete$
DECLARE
    removed bigint;
BEGIN
    EXECUTE format($rows$
        DELETE FROM %1$I WHERE timestamp < $1 AND ctid = ANY (ARRAY(
            SELECT old.ctid FROM symbols s, LATERAL (
                SELECT r.ctid FROM %1$I r
                WHERE r.symbol_id = s.id AND r.timestamp < $1 AND NOT EXISTS (
                    SELECT FROM late_minutes l
                    WHERE l.origin = $2 AND l.symbol_id = s.id AND l.minute <= r.timestamp
                        AND l.minute > r.timestamp - INTERVAL '1 minute'
                )
                ORDER BY r.timestamp LIMIT $3
            ) old LIMIT $3
        ))
    $rows$, (SELECT table_name FROM ledger WHERE origin = which)) USING before, which, most;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$delete$
"""
# Drop the oldest chunk before a moment, once its minutes are made; whether there was one.
DROP = """
CREATE FUNCTION arbstore_drop_chunk(which text, before timestamptz) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '500ms' AS $drop$
DECLARE
    raw CONSTANT regclass := (SELECT quote_ident(table_name) FROM ledger WHERE origin = which);
    chunk record;
BEGIN
    SELECT range_start AS since, range_end AS until INTO chunk FROM timescaledb_information.chunks
    WHERE to_regclass(format('%I.%I', hypertable_schema, hypertable_name)) = raw AND range_end <= before
    ORDER BY range_start LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    EXECUTE (
        SELECT format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', string_agg(c::text, ', '))
        FROM show_chunks(raw, older_than => chunk.until, newer_than => chunk.since) c
    );
    WHILE arbstore_remake_minutes(which, date_trunc('minute', chunk.since, 'UTC'), chunk.until) LOOP
    END LOOP;
    PERFORM arbstore_rows_gone(
        which,
        date_trunc('minute', chunk.since, 'UTC'),
        date_trunc('minute', chunk.until + INTERVAL '59.999999 seconds', 'UTC')
    );
    PERFORM drop_chunks(raw, older_than => chunk.until, newer_than => chunk.since);
    RETURN true;
END
$drop$
"""
# One step of looking after a table. It makes an hour of minutes, or it removes a chunk, or at most so many rows, older
# than a moment (null: none). Call it until there is no more to do. It waits for locks a shorter time than it takes to
# notice a deadlock: no writer is ever broken off for it.
KEEP = """
CREATE FUNCTION arbstore_keep(
    which text, older_than timestamptz, most integer, may_make boolean,
    OUT more boolean, OUT rows bigint, OUT chunks bigint
) LANGUAGE plpgsql SET search_path FROM CURRENT AS $keep$
DECLARE
    known ledger;
    before timestamptz;
BEGIN
    rows := 0;
    chunks := 0;
    more := (may_make AND arbstore_make_minutes(which)) OR arbstore_remake_minutes(which, '-infinity', 'infinity');
    IF more OR older_than IS NULL THEN
        RETURN;
    END IF;
    SELECT * INTO STRICT known FROM ledger WHERE origin = which FOR UPDATE;
    before := LEAST(date_trunc('minute', older_than, 'UTC'), known.made_until);
    FOR attempt IN 1 .. 10 LOOP
        BEGIN
            IF arbstore_is_hypertable(known.table_name) THEN
                chunks := arbstore_drop_chunk(which, before)::integer;
                more := chunks > 0;
            ELSIF known.is_frozen AND known.dropped_before >= before THEN
                rows := arbstore_delete_rows(which, known.dropped_before, most);
                more := rows > 0;
            ELSE
                PERFORM arbstore_freeze_minutes(which, before);
                more := true;
            END IF;
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            PERFORM pg_sleep(0.1);
        END;
    END LOOP;
    RAISE WARNING '% is in use: its old rows stay until the next cleanup', known.table_name;
END
$keep$
"""
# The server's own job. No procedure that commits may set the search path for itself, so its configuration names it.
JOB = """
CREATE PROCEDURE arbstore_keep_candles(job_id integer, config jsonb) LANGUAGE plpgsql AS $job$
DECLARE
    which text;
    writers text[];
    more boolean := true;
    older_than CONSTANT timestamptz := now() - (config ->> 'drop_after')::interval;
BEGIN
    PERFORM set_config('search_path', quote_ident(config ->> 'schema'), false);
    SELECT origin INTO STRICT which FROM ledger WHERE table_name = config ->> 'table';
    PERFORM arbstore_close_minutes(which, false);
    COMMIT;
    writers := arbstore_writers(which);
    FOR attempt IN 1 .. 100 LOOP
        EXIT WHEN NOT writers && arbstore_writers(which);
        COMMIT;
        PERFORM pg_sleep(0.1);
    END LOOP;
    WHILE more LOOP
        SELECT k.more INTO more
        FROM arbstore_keep(which, older_than, 10000, NOT writers && arbstore_writers(which)) k;
        COMMIT;
    END LOOP;
END
$job$
"""
# Mark the minutes of rows, just written, that were closed already. Returns how many rows came too late for the candles
# of how many minutes. A transaction with an old snapshot may not see how far minutes are closed, so it marks them all.
MARK = """
CREATE FUNCTION arbstore_mark_late(
    which text, ids integer[], times timestamptz[], OUT too_late bigint, OUT too_late_minutes bigint
) LANGUAGE plpgsql SET search_path FROM CURRENT AS $mark$
DECLARE
    known ledger;
    oldest CONSTANT timestamptz := (SELECT min(t) FROM unnest(times) t);
BEGIN
    too_late := 0;
    too_late_minutes := 0;
    SELECT * INTO STRICT known FROM ledger WHERE origin = which;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        known.closed_until := 'infinity';
    END IF;
    IF oldest >= known.closed_until THEN
        RETURN;
    END IF;
    INSERT INTO late_minutes (origin, symbol_id, minute)
    SELECT DISTINCT which, r.id, date_trunc('minute', r.at, 'UTC') FROM unnest(ids, times) r (id, at)
    WHERE r.at < known.closed_until;
    IF oldest < known.dropped_before THEN
        SELECT count(*), count(DISTINCT (c.symbol_id, c.timestamp)) INTO too_late, too_late_minutes
        FROM unnest(ids, times) r (id, at) JOIN candles c
            ON c.symbol_id = r.id AND c.origin = which AND c.timeframe = '1m'
            AND c.timestamp = date_trunc('minute', r.at, 'UTC')
        WHERE c.timestamp >= date_trunc('minute', oldest, 'UTC') AND c.timestamp < known.dropped_before
            AND c.rows_gone;
    END IF;
END
$mark$
"""
# The minutes of one symbol: stored ones, and those made now, of rows that are not in the stored ones yet.
MINUTES = """
CREATE FUNCTION arbstore_minutes(which text, symbol integer, since timestamptz, until timestamptz) RETURNS TABLE (
    "timestamp" timestamptz, open float8, high float8, low float8, close float8,
    volume float8, vwap float8, num_trades bigint, created_at timestamptz
) LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $minutes$
DECLARE
    known ledger;
    late timestamptz[];
    made CONSTANT text := format('SELECT m.* FROM arbstore_candles_of_%s($1, $2, $3, INTERVAL ''1 minute'') m', which);
BEGIN
    SELECT * INTO STRICT known FROM ledger WHERE origin = which;
    late := ARRAY(
        SELECT DISTINCT l.minute FROM late_minutes l
        WHERE l.origin = which AND l.symbol_id = symbol
            AND l.minute >= since AND l.minute < LEAST(until, known.made_until)
            AND (l.minute >= known.dropped_before OR NOT EXISTS (
                SELECT FROM candles c
                WHERE c.symbol_id = symbol AND c.origin = which AND c.timeframe = '1m' AND c.timestamp = l.minute
                    AND c.rows_gone
            ))
        ORDER BY l.minute
    );
    RETURN QUERY EXECUTE format($stored$
        SELECT c.timestamp, c.open, c.high, c.low, c.close, c.volume, c.vwap, c.num_trades, c.created_at FROM candles c
        WHERE c.symbol_id = $1 AND c.origin = %L AND c.timeframe = '1m' AND c.timestamp >= $2 AND c.timestamp < $3
            AND c.timestamp <> ALL ($4) AND (c.timestamp < $5 OR c.rows_gone)
    $stored$, which) USING symbol, since, until, late, known.made_until;
    IF late <> '{}' THEN
        RETURN QUERY EXECUTE made || ' WHERE m.timestamp = ANY ($4)'
        USING symbol, late[1], late[cardinality(late)] + INTERVAL '1 minute', late;
    END IF;
    IF until > known.made_until THEN
        RETURN QUERY EXECUTE made || CASE WHEN known.made_until < known.dropped_before THEN format($gone$
            WHERE NOT EXISTS (
                SELECT FROM candles c
                WHERE c.symbol_id = $1 AND c.origin = %L AND c.timeframe = '1m' AND c.timestamp = m.timestamp
                    AND c.rows_gone
            )
        $gone$, which) ELSE '' END
        USING symbol, GREATEST(since, known.made_until), until;
    END IF;
END
$minutes$
"""
# When the first and the last row or stored minute of one symbol is. With many chunks, min() and max() take five times
# as long to plan.
ENDS = """
CREATE FUNCTION arbstore_ends(
    which text, symbol integer, since timestamptz, until timestamptz, OUT first timestamptz, OUT last timestamptz
) LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $ends$
DECLARE
    rows CONSTANT text := format(
        'SELECT timestamp FROM %I WHERE symbol_id = $1 AND timestamp >= $2 AND timestamp < $3',
        (SELECT table_name FROM ledger WHERE origin = which)
    );
    stored CONSTANT text := format(
        'SELECT timestamp FROM candles WHERE symbol_id = $1 AND origin = %L AND timeframe = %L'
        ' AND timestamp >= $2 AND timestamp < $3', which, '1m'
    );
BEGIN
    EXECUTE format(
        'SELECT LEAST((%1$s ORDER BY timestamp LIMIT 1), (%2$s ORDER BY timestamp LIMIT 1)),'
        ' GREATEST((%1$s ORDER BY timestamp DESC LIMIT 1), (%2$s ORDER BY timestamp DESC LIMIT 1))', rows, stored
    ) INTO first, last USING symbol, since, until;
END
$ends$
"""
FUNCTIONS = (
    *(OF_TRADES, OF_QUOTES, STORE, MAKE, REMAKE, CLOSE, WRITERS, GONE, IS_HYPERTABLE, FREEZE, DELETE, DROP, KEEP, JOB),
    *(MARK, MINUTES, ENDS),
)

# What a move needs: the length and the spelling of a timeframe, such as 1h for 60m.
LENGTH = """
CREATE OR REPLACE FUNCTION pg_temp.length_of(timeframe text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $length$
    SELECT left(timeframe, -1)::bigint * CASE right(timeframe, 1)
        WHEN 's' THEN 1 WHEN 'm' THEN 60 WHEN 'h' THEN 3600 WHEN 'd' THEN 86400 WHEN 'w' THEN 604800 END
$length$
"""
SPELLING = """
CREATE OR REPLACE FUNCTION pg_temp.spelled(timeframe text) RETURNS text LANGUAGE sql IMMUTABLE AS $spelled$
    SELECT coalesce((
        SELECT pg_temp.length_of(timeframe) / seconds || unit
        FROM (VALUES (604800, 'w'), (86400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')) units (seconds, unit)
        WHERE pg_temp.length_of(timeframe) % seconds = 0 ORDER BY seconds DESC LIMIT 1
    ), timeframe)
$spelled$
"""
# While rows move, the old tables have other names, and views in their place: all can read them, and nobody can write.
VIEW = """
CREATE VIEW {table} AS SELECT * FROM {table}_before UNION ALL SELECT * FROM {table}_before WHERE false
"""
REFUSE = """
CREATE OR REPLACE FUNCTION arbstore_moving() RETURNS trigger LANGUAGE plpgsql AS $moving$
BEGIN
    RAISE EXCEPTION 'the rows of % are moving to another table', TG_TABLE_NAME
        USING HINT = 'Write again when the deploy has ended. If it was interrupted, start it again.';
END
$moving$
"""
REFUSED = """
CREATE TRIGGER arbstore_moving INSTEAD OF INSERT OR UPDATE OR DELETE ON {table}
FOR EACH ROW EXECUTE FUNCTION arbstore_moving()
"""
FEED = """
INSERT INTO candles_moving
    (symbol_id, origin, timeframe, timestamp, open, high, low, close, volume, vwap, num_trades, created_at, is_closed)
SELECT DISTINCT ON (symbol_id, pg_temp.spelled(timeframe), timestamp)
    symbol_id, 'feed', pg_temp.spelled(timeframe), timestamp, open, high, low, close, volume, vwap, num_trades,
    created_at,
    created_at >= timestamp + coalesce(pg_temp.length_of(timeframe) * INTERVAL '1 second', INTERVAL '0')
FROM candles_before WHERE timestamp >= :since AND timestamp < :until
ORDER BY symbol_id, pg_temp.spelled(timeframe), timestamp, created_at DESC
ON CONFLICT DO NOTHING
"""
# A minute may be both rolled up and in a view: the candle of more rows is the complete one.
MADE = """
INSERT INTO candles_moving
    (symbol_id, origin, timeframe, timestamp, open, high, low, close, volume, vwap, num_trades, created_at, rows_gone)
SELECT DISTINCT ON (symbol_id, source, timestamp)
    symbol_id, source, '1m', timestamp, open, high, low, close, volume,
    CASE WHEN volume > 0 THEN nullif(turnover / volume, 0) END, num_trades, created_at,
    timestamp < CASE source WHEN 'trades' THEN cast(:trades AS timestamptz) ELSE cast(:quotes AS timestamptz) END
FROM ({sources}) made WHERE timestamp >= :since AND timestamp < :until
ORDER BY symbol_id, source, timestamp, num_rows DESC
ON CONFLICT DO NOTHING
"""
ROLLED_UP = """
SELECT symbol_id, source, timestamp, open, high, low, close, volume, turnover, num_trades, created_at,
    coalesce(num_trades, num_quotes) AS num_rows FROM candle_rollups_before
"""
# The ledger makes candles again for minutes whose rows are still there.
COMPUTED = {
    "trade_candles_1m": """
SELECT symbol_id, 'trades', timestamp, open, high, low, close, volume, turnover, num_trades, created_at, num_trades
FROM trade_candles_1m
""",
    "quote_candles_1m": """
SELECT symbol_id, 'quotes', timestamp, open, high, low, close, NULL, NULL, NULL, created_at, num_quotes
FROM quote_candles_1m
""",
}
# Candles of these minutes are complete, and their rows may be gone: those that a cleanup made, and those before the
# oldest chunk.
DROPPED = """
SELECT least(now(), greatest(
    (SELECT max(timestamp) + INTERVAL '1 minute' FROM candle_rollups WHERE source = :origin),
    ({oldest})
))
"""
OLDEST = """
SELECT coalesce(date_trunc('minute', min(range_start), 'UTC'), now()) FROM timescaledb_information.chunks
WHERE hypertable_schema = current_schema() AND hypertable_name = :table
"""
EMPTY_ONLY = """
DO $only$
BEGIN
    IF EXISTS (SELECT FROM candles) OR EXISTS (SELECT FROM candle_rollups) THEN
        RAISE EXCEPTION 'SQL made offline cannot move the rows of candles: run `alembic upgrade` on the database';
    END IF;
END
$only$
"""
BACK_FEED = """
INSERT INTO candles (symbol_id, timeframe, timestamp, open, high, low, close, volume, vwap, num_trades, created_at)
SELECT symbol_id, timeframe, timestamp, open, high, low, close, volume, vwap, num_trades, created_at
FROM candles_moving WHERE origin = 'feed' AND timestamp >= :since AND timestamp < :until
ON CONFLICT DO NOTHING
"""
BACK_MADE = """
INSERT INTO candle_rollups
    (symbol_id, source, timestamp, open, high, low, close, volume, turnover, num_trades, created_at)
SELECT symbol_id, origin, timestamp, open, high, low, close, volume, coalesce(vwap * volume, 0 * volume),
    num_trades, created_at
FROM candles_moving WHERE origin IN ('trades', 'quotes') AND timestamp >= :since AND timestamp < :until
ON CONFLICT DO NOTHING
"""


def upgrade() -> None:
    if not _exists(MOVING):
        _create_candles()
    views = [f"{name}_1m" for name in ("trade_candles", "quote_candles") if _exists(f"{name}_1m")]
    ends: dict[str, object] = {}
    if op.get_context().as_sql:
        op.execute(EMPTY_ONLY)
    elif any(_has_rows(table) for table in ("candles", "candle_rollups", *views)):
        sources = " UNION ALL ".join([ROLLED_UP, *(COMPUTED[view] for view in views)])
        dropped = sa.text(DROPPED.format(oldest=OLDEST if views else "SELECT cast(:table AS timestamptz)"))
        ends = {
            origin: op.get_bind().scalar(dropped, {"origin": origin, "table": table if views else None})
            for origin, table in RAW.items()
        }
        _set_aside("candles", "candle_rollups")
        before = ["candles_before", "candle_rollups_before"]
        _move([*before, *views], FEED, MADE.format(sources=sources), **ends)
        for table in before:
            op.execute(f"DROP VIEW {table.removesuffix('_before')}")
            op.rename_table(table, table.removesuffix("_before"))
        op.execute("DROP FUNCTION arbstore_moving")
    for name in ("quote_candles", "trade_candles"):
        for length in ("1d", "1h", "1m"):
            op.remove_continuous_aggregate_policy(f"{name}_{length}")
            op.drop_continuous_aggregate(f"{name}_{length}")
    _create_ledger()
    for origin, end in ends.items():
        known = "UPDATE ledger SET dropped_before = coalesce(:end, dropped_before) WHERE origin = :origin"
        op.execute(sa.text(known).bindparams(sa.bindparam("end", end, sa.DateTime(timezone=True)), origin=origin))
    op.drop_table("candle_rollups")
    op.drop_table("candles")
    _rename(MOVING, "candles")
    op.add_columnstore_policy("candles", after=timedelta(days=30))  # not before: its job would meet the move
    for function in FUNCTIONS:
        op.execute(sa.text(function.strip().replace(":", "\\:")))
    for table in RAW.values():
        op.remove_retention_policy(table)
        op.add_retention_job(table, "arbstore_keep_candles", every=EVERY, drop_after=KEEP_FOR)


def downgrade() -> None:
    if not _exists(MOVING):
        if not op.get_context().as_sql and op.get_bind().scalar(sa.text(OTHERS)):
            raise CommandError(
                "candles has rows of origins that revision 0006 cannot hold (mark, index, mid): export them, delete"
                " them, then run this again"
            )
        _rename("candles", MOVING)
        for table in RAW.values():
            op.remove_retention_job(table, "arbstore_keep_candles")
        _create_former_candles()
        _revision_0006().upgrade()
    if not op.get_context().as_sql and _has_rows(MOVING):
        _move([MOVING], BACK_FEED, BACK_MADE)
    for table in RAW.values():
        op.add_retention_policy(table, drop_after=KEEP_FOR)
    for signature in SIGNATURES:
        op.execute(f"DROP ROUTINE {signature}")
    op.drop_table("late_minutes")
    op.drop_table("ledger")
    op.drop_table(MOVING)


def _exists(name: str) -> bool:
    if op.get_context().as_sql:
        return False
    return op.get_bind().scalar(sa.text("SELECT to_regclass(:name)"), {"name": name}) is not None


def _rename(table: str, to: str) -> None:
    op.rename_table(table, to)
    op.execute(f"ALTER TABLE {to} RENAME CONSTRAINT pk_{table} TO pk_{to}")


def _has_rows(table: str) -> bool:
    return bool(op.get_bind().scalar(sa.text(f"SELECT EXISTS (SELECT FROM {table})")))  # noqa: S608 # our own names


def _set_aside(*tables: str) -> None:
    """Let readers of the tables go on, and refuse writers."""
    op.execute(REFUSE)
    for table in tables:
        if not _exists(f"{table}_before"):
            op.rename_table(table, f"{table}_before")
            op.execute(VIEW.format(table=table))
            op.execute(REFUSED.format(table=table))


def _move(sources: list[str], *statements: str, **values: object) -> None:
    """Copy the rows, a week in a transaction. What a move before has copied stays, and is not copied again."""
    connection = op.get_bind()
    ends = " UNION ALL ".join(f"SELECT min(timestamp) AS since, max(timestamp) AS until FROM {one}" for one in sources)  # noqa: S608 # our own names
    first, last, now = connection.execute(sa.text(f"SELECT min(since), max(until), now() FROM ({ends}) ends")).one()  # noqa: S608 # our own names
    edition = edition_of(op.get_context())
    measure = "hypertable_size" if edition.has_hypertables else "pg_total_relation_size"
    needed = sum(connection.scalar(sa.text(f"SELECT {measure}('{one}')")) for one in sources)  # our own names
    log.info("candles move to a new table: about %s MB of disk must be free until the old one is dropped", needed >> 20)
    week = timedelta(days=7)
    with _committing(connection):
        for table in RAW.values():
            op.remove_retention_policy(table)
        connection.execute(sa.text(LENGTH))
        connection.execute(sa.text(SPELLING))
        weeks = connection.execute(sa.text(WEEKS), {"first": first, "last": last}).scalars().all()
        for number, since in enumerate(weeks, 1):
            bounds = {"since": since, "until": since + week}
            for statement in statements:
                text = sa.text(statement.replace("::", "\\:\\:"))
                connection.execute(text, {name: (values | bounds)[name] for name in text.compile().params})
            if MOVING not in sources and edition.has_policies and bounds["until"] < now - timedelta(days=30):
                connection.execute(sa.text(COMPRESS), bounds)
            log.info("candles have moved for %s of %s weeks", number, len(weeks))


WEEKS = """
SELECT generate_series(date_bin('7 days', cast(:first AS timestamptz), TIMESTAMPTZ '1970-01-01 00:00+00'),
    cast(:last AS timestamptz), INTERVAL '168 hours')
"""
COMPRESS = """
SELECT compress_chunk(c, if_not_compressed => true)
FROM show_chunks('candles_moving',
    newer_than => cast(:since AS timestamptz), older_than => cast(:until AS timestamptz)) c
"""
OTHERS = "SELECT EXISTS (SELECT FROM candles WHERE origin NOT IN ('feed', 'trades', 'quotes'))"
SIGNATURES = (
    "arbstore_ends(text, integer, timestamptz, timestamptz)",
    "arbstore_minutes(text, integer, timestamptz, timestamptz)",
    "arbstore_mark_late(text, integer[], timestamptz[])",
    "arbstore_keep_candles(integer, jsonb)",
    "arbstore_keep(text, timestamptz, integer, boolean)",
    "arbstore_drop_chunk(text, timestamptz)",
    "arbstore_delete_rows(text, timestamptz, integer)",
    "arbstore_freeze_minutes(text, timestamptz)",
    "arbstore_is_hypertable(text)",
    "arbstore_rows_gone(text, timestamptz, timestamptz)",
    "arbstore_writers(text)",
    "arbstore_close_minutes(text, boolean)",
    "arbstore_remake_minutes(text, timestamptz, timestamptz)",
    "arbstore_make_minutes(text)",
    "arbstore_store_minutes(text, timestamptz, timestamptz, boolean)",
    "arbstore_candles_of_quotes(integer, timestamptz, timestamptz, interval)",
    "arbstore_candles_of_trades(integer, timestamptz, timestamptz, interval)",
)


@contextmanager
def _committing(connection: sa.Connection) -> Iterator[None]:
    """Commit each statement by itself, and keep other deploys out meanwhile."""
    key, failed = {"key": LOCK}, None
    try:
        with op.get_context().autocommit_block():
            connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), key)
            connection.execute(sa.text("SET statement_timeout = 0"))
            try:
                yield
            except Exception as error:
                failed = error
                raise
            connection.execute(sa.text("RESET statement_timeout"))
    except Exception as error:  # noqa: BLE001 # the end of the block speaks of the lost connection instead
        raise failed or error from None
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key), pg_advisory_unlock(:key)"), key)
    connection.execute(sa.text("SET LOCAL statement_timeout = 0"))


def _revision_0006() -> object:
    return op.get_context().environment_context.script.get_revision("0006").module


def _prices() -> list[sa.Column[float]]:
    names = ("open", "high", "low", "close")
    return [
        *(sa.Column(name, sa.Double(), nullable=False) for name in names),
        sa.Column("volume", sa.Double(), nullable=True),
        sa.Column("vwap", sa.Double(), nullable=True),
    ]


def _received() -> list[sa.Column[object]]:
    return [
        sa.Column("num_trades", sa.BigInteger(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when the collector received it",
        ),
    ]


def _checks() -> list[sa.CheckConstraint]:
    bounds = dict.fromkeys(("open", "high", "low", "close", "vwap"), ">") | {"volume": ">="}
    return [
        *(
            sa.CheckConstraint(f"{name} {above} 0 AND {name} < 'Infinity'", name=op.f(f"ck_candles_{name}"))
            for name, above in bounds.items()
        ),
        sa.CheckConstraint("num_trades >= 0", name=op.f("ck_candles_num_trades")),
        sa.CheckConstraint(
            "low <= LEAST(open, close) AND high >= GREATEST(open, close)", name=op.f("ck_candles_range")
        ),
        sa.ForeignKeyConstraint(["symbol_id"], ["symbols.id"], name=op.f("fk_candles_symbol_id_symbols")),
    ]


def _create_candles() -> None:
    op.create_table(
        MOVING,
        sa.Column("symbol_id", sa.Integer(), nullable=False, comment="the series: symbols.id"),
        sa.Column(
            "origin",
            sa.Text(),
            nullable=False,
            comment="feed, mark, index, mid: as delivered; trades, quotes: made here",
        ),
        sa.Column("timeframe", sa.Text(), nullable=False, comment="length of the bar: 1m, 1h, 1d"),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False, comment="when the bar begins"),
        *_prices(),
        *_received(),
        sa.Column(
            "is_closed", sa.Boolean(), server_default=sa.text("true"), nullable=False, comment="the bar has ended"
        ),
        sa.Column(
            "rows_gone",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="it was made here, and cannot be made again",
        ),
        *_checks(),
        sa.CheckConstraint(
            "origin IN ('feed', 'mark', 'index', 'mid', 'trades', 'quotes')", name=op.f("ck_candles_origin")
        ),
        sa.PrimaryKeyConstraint("symbol_id", "origin", "timeframe", "timestamp", name=op.f(f"pk_{MOVING}")),
        comment="open, high, low and close",
    )
    op.create_hypertable(MOVING, "timestamp", chunk_interval=timedelta(days=7))
    op.enable_columnstore(MOVING, segment_by=["symbol_id", "origin", "timeframe"], order_by=["timestamp DESC"])


def _create_former_candles() -> None:
    op.create_table(
        "candles",
        sa.Column("symbol_id", sa.Integer(), nullable=False, comment="the series: symbols.id"),
        sa.Column("timeframe", sa.Text(), nullable=False, comment="length of the bar: 1m, 1h, 1d"),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False, comment="when the bar begins"),
        *_prices(),
        *_received(),
        *_checks(),
        sa.PrimaryKeyConstraint("symbol_id", "timeframe", "timestamp", name=op.f("pk_candles")),
        comment="open, high, low and close",
    )
    op.create_hypertable("candles", "timestamp", chunk_interval=timedelta(days=7))
    op.enable_columnstore("candles", segment_by=["symbol_id", "timeframe"], order_by=["timestamp DESC"])
    op.add_columnstore_policy("candles", after=timedelta(days=30))


def _create_ledger() -> None:
    beginning = sa.text("'1970-01-01 00:00+00'")
    moments = {
        "closed_until": "rows before it that are inserted from now on leave a mark in late_minutes",
        "made_until": "minutes before it are stored in candles",
        "dropped_before": "rows before it may have been dropped",
    }
    op.create_table(
        "ledger",
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False, comment="of the candles that are made of its rows"),
        *(
            sa.Column(name, sa.DateTime(timezone=True), server_default=beginning, nullable=False, comment=comment)
            for name, comment in moments.items()
        ),
        sa.Column(
            "is_frozen",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="no minute before dropped_before was made since the last drop",
        ),
        sa.PrimaryKeyConstraint("table_name", name=op.f("pk_ledger")),
        sa.UniqueConstraint("origin", name=op.f("uq_ledger_origin")),
        comment="what is made of the rows of each table, before they go",
    )
    for origin, table in RAW.items():
        op.execute(f"INSERT INTO ledger (table_name, origin) VALUES ('{table}', '{origin}')")  # noqa: S608 # our own names
    op.create_table(
        "late_minutes",
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("symbol_id", sa.Integer(), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.PrimaryKeyConstraint("origin", "symbol_id", "minute", "id", name=op.f("pk_late_minutes")),
        comment="minutes to be made again, because rows came after they were made",
    )
