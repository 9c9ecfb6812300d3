#!/usr/bin/env bash
# Installs an OpenID Connect issuer for the tests below target/oidc-provider, in a pinned version, unless it is there; says where.
set -euo pipefail
cd "$(dirname "$0")/../.."
from="$PWD/e2e/oidc-provider"
to="$PWD/target/oidc-provider"

mkdir -p "$to"
# Two tests may ask for it at once.
exec 9>"$to/lock"
flock 9
stamp="$(sha256sum <"$from/package-lock.json")"
if [ "$(cat "$to/stamp" 2>/dev/null)" != "$stamp" ]; then
  cp "$from"/package*.json "$to/"
  npm ci --prefix "$to" --no-audit --no-fund >"$to/log" 2>&1 || { tail -n 20 "$to/log" >&2; exit 1; }
  echo "$stamp" >"$to/stamp"
fi
cp "$from"/*.mjs "$to/"
echo "$to"
