#!/usr/bin/env bash
# Installs clients of the Docker Engine API for the tests below target/docker-clients, unless they are there; says where. docker-py and
# testcontainers in pinned versions, and Debian's newest compose, which is a plugin of docker.
set -euo pipefail
cd "$(dirname "$0")/../.."
from="$PWD/e2e/docker-clients"
to="$PWD/target/docker-clients"

mkdir -p "$to"
# Two tests may ask for them at once.
exec 9>"$to/lock"
flock 9
stamp="$(sha256sum <"$from/requirements.txt")"
if [ "$(cat "$to/stamp" 2>/dev/null)" != "$stamp" ]; then
  rm -rf "$to/python"
  {
    python3 -m venv "$to/python"
    "$to/python/bin/pip" install --disable-pip-version-check -r "$from/requirements.txt"
    if [ ! -x "$to/cli-plugins/docker-compose" ]; then
      e2e/scripts/debian-packages.sh sid "$to/unpacked" docker-compose
      mkdir -p "$to/cli-plugins"
      mv "$to/unpacked/usr/libexec/docker/cli-plugins/docker-compose" "$to/cli-plugins/"
      rm -rf "$to/unpacked"
    fi
  } >"$to/log" 2>&1 || { tail -n 20 "$to/log" >&2; exit 1; }
  echo "$stamp" >"$to/stamp"
fi
echo "$to"
