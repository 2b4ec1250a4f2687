"""The way back from a hypertable to an ordinary table, as one statement that runs online and offline."""

from __future__ import annotations

from alembic_timescaledb.names import literal, quoted

# `old` is the hypertable. Foreign keys to it and views of it stop the DROP by themselves.
_COPY = """\
DO $revert$
DECLARE
    old CONSTANT regclass := {regclass};
    lost text;
    columns text;
    rebuilt text[];
    freed text[];
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
        UNION ALL SELECT 'identity of ' || attname FROM pg_attribute WHERE attrelid = old AND attidentity <> ''
        UNION ALL SELECT 'publication ' || pubname FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
            WHERE r.prrelid = old
        UNION ALL SELECT 'comment on ' || conname FROM pg_constraint
            WHERE conrelid = old AND contype <> 'c' AND obj_description(oid, 'pg_constraint') IS NOT NULL
        UNION ALL SELECT 'comment on ' || CAST(indexrelid AS regclass) FROM pg_index
            WHERE indrelid = old AND obj_description(indexrelid, 'pg_class') IS NOT NULL) found;
    IF lost IS NOT NULL THEN
        RAISE EXCEPTION '% cannot become an ordinary table by itself, this would get lost: %', old, lost
            USING HINT = 'drop it first, or copy the rows by hand';
    END IF;
    SELECT array_agg(format('ALTER SEQUENCE %s OWNED BY NONE', CAST(s.oid AS regclass))) INTO freed
        FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
        WHERE d.refobjid = old AND d.deptype = 'a' AND d.classid = 'pg_class'::regclass;
    SELECT array_agg(command ORDER BY rank) INTO rebuilt FROM (
        SELECT 0 AS rank, format('ALTER TABLE {format} OWNER TO %I', pg_get_userbyid(relowner)) AS command
            FROM pg_class WHERE oid = old
        UNION ALL SELECT 0, format('ALTER TABLE {format} SET (%s)', array_to_string(reloptions, ', '))
            FROM pg_class WHERE oid = old AND reloptions IS NOT NULL
        UNION ALL SELECT 1, format('ALTER SEQUENCE %s OWNED BY {format}.%I', CAST(s.oid AS regclass), attname)
            FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
            JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE d.refobjid = old AND d.deptype = 'a' AND d.classid = 'pg_class'::regclass
        UNION ALL SELECT 1, format('COMMENT ON TABLE {format} IS %L', obj_description(old, 'pg_class'))
            WHERE obj_description(old, 'pg_class') IS NOT NULL
        UNION ALL SELECT CASE contype WHEN 'f' THEN 2 ELSE 1 END, format('ALTER TABLE {format} ADD CONSTRAINT %I %s',
            conname, pg_get_constraintdef(oid))
            FROM pg_constraint WHERE conrelid = old AND contype IN ('p', 'u', 'x', 'f')
        UNION ALL SELECT 3, pg_get_indexdef(indexrelid) FROM pg_index i WHERE indrelid = old
            AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.conrelid = old)
        UNION ALL SELECT 4, format('GRANT %s%s ON {format} TO %s%s', privilege_type,
            CASE WHEN attname IS NOT NULL THEN format(' (%I)', attname) END,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
            CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
            FROM (SELECT NULL AS attname, relacl AS acl FROM pg_class WHERE oid = old
                  UNION ALL SELECT attname, attacl FROM pg_attribute WHERE attrelid = old AND NOT attisdropped) granted,
                aclexplode(acl) WHERE grantee <> (SELECT relowner FROM pg_class WHERE oid = old)) command;
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns FROM pg_attribute
        WHERE attrelid = old AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
    CREATE TABLE {draft} (LIKE {table} INCLUDING ALL EXCLUDING INDEXES);
    EXECUTE format('INSERT INTO {draft_format} (%1$s) SELECT %1$s FROM {format}', columns);
    FOR i IN 1 .. coalesce(array_length(freed, 1), 0) LOOP
        EXECUTE freed[i];
    END LOOP;
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
