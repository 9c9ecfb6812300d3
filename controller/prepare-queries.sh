#!/bin/sh
# Writes .sqlx anew: what the compiler knows of every query when there is no database. Run it after changing SQL or migrations.
# Needs initdb and postgres on PATH or in PG_BINDIR, and psql.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=${PG_BINDIR:-$(pg_config --bindir)}
dir=$(mktemp -d)
as_postgres() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; else "$@"; fi; }
if [ "$(id -u)" = 0 ]; then chown postgres "$dir"; fi
as_postgres "$bin/initdb" -U postgres -A trust -E UTF8 --no-sync -D "$dir/data" >/dev/null
trap 'as_postgres "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null; rm -rf "$dir"' EXIT
as_postgres "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -o "-c listen_addresses= -c unix_socket_directories=$dir" start >/dev/null
for migration in "$here"/migrations/*.sql; do psql -q -h "$dir" -U postgres -v ON_ERROR_STOP=1 -1 -f "$migration"; done
rm -rf "$here/.sqlx" && mkdir "$here/.sqlx"
touch "$here/src/lib.rs"
cd "$here"
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$here/.sqlx" DATABASE_URL="postgres://postgres@localhost/postgres?host=$dir" \
    cargo check --package gantry-controller --all-targets
