#!/usr/bin/env bash
# `make quickstart-down`: stops what quickstart started and removes its data. Packages it installed stay.
set -euo pipefail
# shellcheck source=examples/quickstart/lib.sh
. "$(dirname "$0")/lib.sh"

if [ ! -e "$marker" ]; then
  say "there is no quickstart in $dir"
  exit 0
fi
say "stopping gantry dev"
stop_gantry

docker_host="$(cat "$dir/docker-host" 2>/dev/null || true)"
if [ -n "$docker_host" ] && docker -H "$docker_host" version >/dev/null 2>&1; then
  say "removing quickstart's containers and image"
  docker -H "$docker_host" rm -f "${containers[@]}" >/dev/null 2>&1 || true
  docker -H "$docker_host" image rm -f "$image" gantry-quickstart:stable >/dev/null 2>&1 || true
fi
if pid="$(running "$run_dir/dockerd.pid" dockerd)"; then
  say "stopping quickstart's Docker Engine"
  end "$pid" 60 as_root
fi

# As root Postgres may live outside a home that its account cannot enter; the link says where.
postgres="$(readlink "$dir/data/postgres" 2>/dev/null || true)"
case "$postgres" in
  /var/lib/gantry-postgres/?*) as_root rm -rf -- "$postgres" ;;
esac
say "removing $dir"
[ ! -e "$run_dir" ] || as_root rm -rf -- "$run_dir"
rm -rf -- "$dir" 2>/dev/null || as_root rm -rf -- "$dir"
