"""The way back from a hypertable to an ordinary table, as one statement that runs online and offline."""

from __future__ import annotations

from arbstore.timescale.naming import literal, quoted

# `old` is the hypertable. Foreign keys to it and views of it stop the DROP by themselves.
_COPY = """\
DO $revert$
DECLARE
    old CONSTANT regclass := {regclass};
    lost text;
    columns text;
    rebuilt text[];
BEGIN
    IF NOT EXISTS (SELECT FROM timescaledb_information.hypertables
                   WHERE to_regclass(format('%I.%I', hypertable_schema, hypertable_name)) = old) THEN
        RETURN;
    END IF;
    LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;
    SELECT string_agg(what, ', ') INTO lost FROM (
        SELECT 'trigger ' || tgname AS what FROM pg_trigger WHERE tgrelid = old AND NOT tgisinternal
            AND tgname <> 'ts_insert_blocker' AND tgname <> 'ts_cagg_invalidation_trigger'
        UNION ALL SELECT 'row security' FROM pg_class WHERE oid = old AND relrowsecurity
        UNION ALL SELECT 'identity of ' || attname FROM pg_attribute WHERE attrelid = old AND attidentity <> '') found;
    IF lost IS NOT NULL THEN
        RAISE EXCEPTION '% cannot become an ordinary table by itself, this would get lost: %', old, lost
            USING HINT = 'drop it first, or copy the rows by hand';
    END IF;
    SELECT array_agg(command ORDER BY rank) INTO rebuilt FROM (
        SELECT CASE contype WHEN 'f' THEN 2 ELSE 1 END AS rank, format('ALTER TABLE {format} ADD CONSTRAINT %I %s',
            conname, pg_get_constraintdef(oid)) AS command
            FROM pg_constraint WHERE conrelid = old AND contype IN ('p', 'u', 'x', 'f')
        UNION ALL SELECT 3, pg_get_indexdef(indexrelid) FROM pg_index i WHERE indrelid = old
            AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.conrelid = old)
        UNION ALL SELECT 4, format('GRANT %s ON {format} TO %s', privilege_type,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)
            FROM pg_class, aclexplode(relacl) WHERE oid = old AND grantee <> relowner) command;
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns FROM pg_attribute
        WHERE attrelid = old AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
    CREATE TABLE {draft} (LIKE {table} INCLUDING ALL EXCLUDING INDEXES);
    EXECUTE format('INSERT INTO {draft_format} (%1$s) SELECT %1$s FROM {format}', columns);
    DROP TABLE {table};
    ALTER TABLE {draft} RENAME TO {bare};
    FOR i IN 1 .. coalesce(array_length(rebuilt, 1), 0) LOOP
        EXECUTE rebuilt[i];
    END LOOP;
END
$revert$"""


def copied_back(table: str, schema: str | None) -> str:
    """Return the statement that puts an ordinary table with the same rows in the place of the hypertable."""
    full, draft = quoted(table, schema), quoted(f"{table[:54]}_reverted", schema)

    def inside_format(name: str) -> str:
        return name.replace("'", "''").replace("%", "%%")

    return (
        _COPY.replace("{regclass}", literal(full))
        .replace("{table}", full)
        .replace("{draft}", draft)
        .replace("{bare}", quoted(table))
        .replace("{draft_format}", inside_format(draft))
        .replace("{format}", inside_format(full))
    )
