#!/usr/bin/env bash
# Prepares the cluster on the first start, then becomes PostgreSQL. Understands POSTGRES_USER, POSTGRES_PASSWORD,
# POSTGRES_DB and POSTGRES_HOST_AUTH_METHOD with the meaning that they have in the official images.
set -euo pipefail

# Before the caller's own arguments, so that those win.
settings=(
    -c shared_preload_libraries=timescaledb
    -c timescaledb.telemetry_level=off
    -c listen_addresses='*'
    -c max_worker_processes=32         # the default of 8 starves TimescaleDB, which wants workers for every database
    -c max_locks_per_transaction=256   # dropping a hypertable locks each of its chunks and their indexes
)

die() {
    echo "entrypoint: $*" >&2
    exit 1
}

# A half-made cluster would be taken for a finished one at the next start.
discard_cluster() {
    [ -z "$server" ] || { kill -QUIT "$server" && wait "$server"; } 2>/dev/null || true
    find "$PGDATA" -mindepth 1 -delete
    echo "entrypoint: the first start failed; its half-made cluster is removed" >&2
}

make_cluster() {
    local user=$1 method=$2
    local options=(
        --username="$user" --encoding=UTF8 --locale=C.UTF-8 --locale-provider=builtin --builtin-locale=C.UTF-8
        --auth-local=trust  # whoever is inside the container can read the files anyway
        --auth-host="$method"
    )
    if [ -n "${POSTGRES_PASSWORD:-}" ]; then
        initdb "${options[@]}" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD")
    else
        initdb "${options[@]}"
    fi
}

fill_cluster() {
    local user=$1 database=$2 method=$3 file
    shift 3
    echo "host all all all $method" >> "$PGDATA/pg_hba.conf"

    # On the socket alone: nobody may connect before everything below is done.
    postgres "${settings[@]}" "$@" -c listen_addresses= -c port=5432 &
    server=$!
    until pg_isready --quiet --port 5432; do
        kill -0 "$server" 2>/dev/null || die "PostgreSQL did not start"
        sleep 0.05
    done

    local sql=(psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --port 5432 --username "$user" --dbname "$database")
    [ "$database" = postgres ] || createdb --port 5432 --username "$user" --maintenance-db postgres "$database"
    # TimescaleDB greets with a page of warnings.
    PGOPTIONS='-c client_min_messages=error' "${sql[@]}" --command 'CREATE EXTENSION IF NOT EXISTS timescaledb'
    for file in /docker-entrypoint-initdb.d/*.sql; do
        [ -e "$file" ] || continue
        echo "entrypoint: running $file"
        "${sql[@]}" --file "$file"
    done

    kill -INT "$server"
    wait "$server"
}

case ${1:-} in
    -*) set -- postgres "$@" ;;
    postgres) ;;
    *) exec "$@" ;;
esac
case ${2:-} in
    -V | --version | -\? | --help | --describe-config) exec "$@" ;;
esac

if [ "$(id -u)" = 0 ]; then
    install -d -o postgres -g postgres -m 0700 "$PGDATA"
    find "$PGDATA" ! -user postgres -exec chown postgres:postgres {} +
    exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0" "$@"
fi
shift

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    user=${POSTGRES_USER:-postgres}
    method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
    server=
    [ -n "${POSTGRES_PASSWORD:-}" ] || [ "$method" = trust ] ||
        die "set POSTGRES_PASSWORD, or POSTGRES_HOST_AUTH_METHOD=trust to let everyone in without one"
    [ -z "$(ls -A "$PGDATA")" ] || die "$PGDATA is not empty and holds no cluster"
    trap discard_cluster EXIT
    trap 'exit 1' INT TERM
    make_cluster "$user" "$method"
    fill_cluster "$user" "${POSTGRES_DB:-$user}" "$method" "$@"
    trap - EXIT INT TERM
fi

unset POSTGRES_PASSWORD
exec postgres "${settings[@]}" "$@"
