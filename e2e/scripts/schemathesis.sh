#!/usr/bin/env bash
# Lets Schemathesis ask a live controller whatever its OpenAPI documents allow, and what they do not: schemathesis.sh [SECONDS]
# Each document gets its share of the time, by how many operations it has. Schemathesis is installed below target/schemathesis first,
# in pinned versions. The controller has a Postgres of its own, of the installed programs, and everything is gone afterwards.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds="${1:-240}"
from="$PWD/e2e/schemathesis"
to="$PWD/target/schemathesis"

stamp="$(sha256sum <"$from/requirements.txt")"
if [ "$(cat "$to/stamp" 2>/dev/null)" != "$stamp" ]; then
  rm -rf "$to"
  python3 -m venv "$to"
  "$to/bin/pip" install --quiet --disable-pip-version-check -r "$from/requirements.txt"
  echo "$stamp" >"$to/stamp"
fi
cargo build --locked --release --bin gantry-controller

dir="$(mktemp -d)"
chmod 755 "$dir"
port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
"${CARGO_TARGET_DIR:-target}/release/gantry-controller" --listen "127.0.0.1:$port" --embedded-postgres "$dir/postgres" \
  --data-dir "$dir/data" --kubeconfig-out "$dir/kubeconfig" --log-format text >"$dir/log" 2>&1 &
controller=$!
trap 'kill "$controller" 2>/dev/null; wait "$controller" || true; rm -rf "$dir"' EXIT

ask() {
  curl --silent --show-error --fail --cacert "$dir/data/pki/server-ca.crt" \
    --header "@$dir/header" "https://127.0.0.1:$port$1"
}
for _ in $(seq 120); do
  if [ -e "$dir/data/admin-token" ]; then (umask 077 && printf 'Authorization: Bearer %s' "$(cat "$dir/data/admin-token")" >"$dir/header"); fi
  if ask /readyz >"$dir/ready" 2>&1; then break; fi
  kill -0 "$controller" 2>/dev/null || break
  sleep 0.5
done
ask /readyz >/dev/null || { tail -n 20 "$dir/log"; exit 1; }

export GANTRY_TOKEN_FILE="$dir/data/admin-token" SCHEMATHESIS_HOOKS=hooks PYTHONPATH="$from" PYTHONDONTWRITEBYTECODE=1
failed=0
ask /openapi/v3 | python3 -c 'import json, sys; print(*json.load(sys.stdin)["paths"], sep="\n")' >"$dir/documents"
mkdir "$dir/openapi"
operations=0
while read -r document; do
  file="$dir/openapi/${document//\//_}.json"
  ask "/openapi/v3/$document" >"$file"
  count="$(python3 -c 'import json, sys; print(sum("responses" in each for path in json.load(sys.stdin)["paths"].values()
    for each in path.values()))' <"$file")"
  operations=$((operations + count))
  echo "$count $file" >>"$dir/counted"
done <"$dir/documents"
while read -r count file; do
  if [ "$count" = 0 ]; then continue; fi
  echo "== $(basename "$file" .json): $count operations"
  (cd "$dir" && "$to/bin/schemathesis" run "$file" --url "https://127.0.0.1:$port" \
    --tls-verify "$dir/data/pki/server-ca.crt" --phases coverage,fuzzing --max-time "$((1 + seconds * count / operations))" \
    --request-timeout 30 --continue-on-failure --no-color --warnings off \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance </dev/null) || failed=1
done <"$dir/counted"
kill -0 "$controller" || { tail -n 20 "$dir/log"; failed=1; }
if grep -q 'panicked' "$dir/log"; then
  grep -A 3 'panicked' "$dir/log"
  failed=1
fi
exit "$failed"
