#!/usr/bin/env bash
# Every row of the table of faults on real engines, Postgres and binaries, and what was measured as a table at the end.
set -uo pipefail
cd "$(dirname "$0")/../.."
e2e/scripts/needs.sh || exit
e2e/scripts/newer-pgbouncer.sh target/newer-pgbouncer || exit
export GANTRY_E2E_PGBOUNCER="$PWD/target/newer-pgbouncer/pgbouncer"

# A process with two thousand agents has two files for each, and the controller a connection of every one of ten thousand.
ulimit -n 100000 2>/dev/null || ulimit -n "$(ulimit -Hn)"

mkdir -p target/chaos
export GANTRY_FIGURES="$PWD/target/chaos/figures.tsv"
: >"$GANTRY_FIGURES"
# Most of the time these tests wait, so more of them run at once than there are processors. A crowd of agents leaves the others nothing,
# so that comes after them, alone, and as what people run: a release build.
crowds='test(/f19_(a|ten)_thousand/)'
cargo nextest run --locked --workspace --run-ignored all --no-fail-fast --test-threads "${JOBS:-4}" \
  -E "(test(/(^|::)f[0-9][0-9]_/) | test(/::chaos::/) | test(/^chaos::/) | test(watch_history)) - $crowds"
outcome=$?
cargo build --locked --release --bins &&
  cargo nextest run --locked --release -p gantry-e2e --run-ignored all --no-fail-fast --test-threads 1 -E "$crowds" || outcome=1

printf '\n%-4s %-52s %-28s %s\n' row what required measured
sort -s -k1,1 "$GANTRY_FIGURES" | awk -F '\t' '{ printf "%-4s %-52s %-28s %s\n", $1, $2, $3, $4 }'
exit $outcome
