#!/usr/bin/env bash
# Lets every client of the Kubernetes API go through its cases on a live control plane. Clients of other languages are installed
# below target/conformance first, in pinned versions; where they cannot be had, the table says so.
set -euo pipefail
cd "$(dirname "$0")/../.."
from="$PWD/e2e/conformance"
to="$PWD/target/conformance"

# install NAME FILES...: runs install_NAME in an empty place, unless it ran there with the same files before.
install() {
  local name="$1" stamp
  shift
  stamp="$(cat "$@" | sha256sum)"
  if [ "$(cat "$to/$name/stamp" 2>/dev/null)" != "$stamp" ]; then
    rm -rf "${to:?}/$name"
    mkdir -p "$to/$name"
    if "install_$name" "$to/$name" >"$to/$name.log" 2>&1; then
      echo "$stamp" >"$to/$name/stamp"
    else
      echo "warning: the $name client cannot be installed; $to/$name.log says why"
      return
    fi
  fi
  cp "$from/$name"/cases.* "$to/$name/"
}

install_python() {
  set -e
  python3 -m venv "$1"
  "$1/bin/pip" install --disable-pip-version-check -r "$from/python/requirements.txt"
}

install_node() {
  set -e
  mkdir "$1/bin"
  ln -s "$(command -v node)" "$1/bin/node"
  cp "$from/node"/package*.json "$1/"
  npm ci --prefix "$1" --no-audit --no-fund
}

install python "$from/python/requirements.txt"
install node "$from/node/package-lock.json"
cargo build --locked --workspace --bins
"${CARGO_TARGET_DIR:-target}/debug/gantry-conformance" --clients "$to" "$@"
