#!/usr/bin/env bash
# Fetches a pgbouncer that keeps prepared statements (1.21 and later) into a directory, with the libraries it needs, from the Debian
# release after bookworm. The installed one stays as it is.
set -euo pipefail
to="$1"

has_prepared_statements() {
  local version
  version="$("$1" --version 2>/dev/null | sed -nE 's/^PgBouncer ([0-9.]+).*/\1/p')"
  [ -n "$version" ] && [ "$(printf '%s\n1.21\n' "$version" | sort -V | head -n 1)" = 1.21 ]
}
installed="$(PATH="$PATH:/usr/sbin" command -v pgbouncer || true)"
mkdir -p "$to"
if has_prepared_statements "$to/pgbouncer"; then exit; fi
if [ -n "$installed" ] && has_prepared_statements "$installed"; then
  ln -sf "$installed" "$to/pgbouncer"
  exit
fi

"$(dirname "$0")/debian-packages.sh" trixie "$to/unpacked" pgbouncer libc6 libevent-2.1-7t64 libssl3t64 libcares2 libpam0g libldap2 \
  libsystemd0
cat >"$to/pgbouncer" <<'WRAPPER'
#!/bin/sh
unpacked="$(dirname "$0")/unpacked"
for lib in "$unpacked"/usr/lib/*-linux-gnu; do libs="$lib:/usr/lib/$(basename "$lib"):/lib/$(basename "$lib")"; done
for loader in "$lib"/ld-linux-*; do exec "$loader" --library-path "$libs" "$unpacked/usr/sbin/pgbouncer" "$@"; done
WRAPPER
chmod +x "$to/pgbouncer"
"$to/pgbouncer" --version | head -n 1
