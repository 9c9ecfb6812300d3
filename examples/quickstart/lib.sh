# shellcheck shell=bash disable=SC2034
# Shared by up.sh and down.sh: where things are, and who runs.
#
# GANTRY_QUICKSTART_DIR      another directory; down.sh wants the same
# GANTRY_QUICKSTART_LISTEN   another address for the API, GANTRY_QUICKSTART_METRICS for the agent's metrics
# GANTRY_QUICKSTART_BIN      a directory with built programs, instead of a build
# DOCKER_HOST                another Docker Engine

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
dir="${GANTRY_QUICKSTART_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/gantry-quickstart}"
run_dir="/run/gantry-quickstart-$(id -u)"
# Short, for the socket in it, and another one for each directory.
[ -z "${GANTRY_QUICKSTART_DIR:-}" ] || run_dir+="-$(printf '%s' "$dir" | cksum | cut -d ' ' -f 1)"
marker="$dir/made-by-gantry-quickstart"
image="gantry-quickstart:1"
containers=(quickstart-web quickstart-worker quickstart-cache quickstart-batch quickstart-old quickstart-staging quickstart-production)
PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"

say() { printf '%s\n' "==> $*"; }
fail() {
  printf 'error: %s\n' "$1" >&2
  [ -z "${2:-}" ] || printf 'hint: %s\n' "$2" >&2
  exit 1
}
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# The process id in file $1, if that process runs and its command line holds $2.
running() {
  local pid
  pid="$(cat "$1" 2>/dev/null)" || return 1
  [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$2" && echo "$pid"
}

# Asks process $1 to end and waits up to $2 seconds; $3 is `as_root` where it is not ours.
end() {
  local kill="${3:-} kill"
  $kill -TERM "$1" 2>/dev/null || return 0
  for _ in $(seq $(($2 * 10))); do
    # A zombie has ended too: in a container nobody may collect it.
    grep -qs '^State:[[:space:]]*[^Z]' "/proc/$1/status" || return 0
    sleep 0.1
  done
  $kill -KILL "$1" 2>/dev/null || true
}

stop_gantry() {
  local pid
  if pid="$(running "$dir/gantry.pid" "gantry dev")"; then end "$pid" 60; fi
  rm -f "$dir/gantry.pid"
}
