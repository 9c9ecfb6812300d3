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

# shellcheck disable=SC1091
. /etc/os-release
if [ "${ID:-}" != debian ]; then
  echo "error: this fetches from Debian's archive and works on Debian only" >&2
  exit 1
fi
mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/packages"
touch "$work/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$work/sources.list"
apt() {
  apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" \
    -o Dir::Cache="$work/cache" -o Dir::State::status="$work/status" -o APT::Sandbox::User="$(id -un)" \
    -o Acquire::Languages=none "$@"
}
apt update
(cd "$work/packages" && apt download pgbouncer libc6 libevent-2.1-7t64 libssl3t64 libcares2 libpam0g libldap2 libsystemd0)
for package in "$work"/packages/*.deb; do
  dpkg-deb -x "$package" "$to/root"
done
cat >"$to/pgbouncer" <<'WRAPPER'
#!/bin/sh
root="$(dirname "$0")/root"
for lib in "$root"/usr/lib/*-linux-gnu; do libs="$lib:/usr/lib/$(basename "$lib"):/lib/$(basename "$lib")"; done
for loader in "$lib"/ld-linux-*; do exec "$loader" --library-path "$libs" "$root/usr/sbin/pgbouncer" "$@"; done
WRAPPER
chmod +x "$to/pgbouncer"
"$to/pgbouncer" --version | head -n 1
