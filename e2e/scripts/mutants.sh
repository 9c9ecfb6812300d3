#!/usr/bin/env bash
# Plants one mistake after the other in a copy of the tree and says which level of tests catches it; fails if one is not caught.
#
# usage: mutants.sh [NAME...]    as in e2e/mutants, without number and ending; all of them without a name
set -uo pipefail
cd "$(dirname "$0")/../.."
root="$PWD" place="${MUTANTS_DIR:-$PWD/target/mutants}"
tree="$place/tree"
export CARGO_TARGET_DIR="${MUTANTS_TARGET_DIR:-$place/target}" SQLX_OFFLINE=true CARGO_TERM_COLOR=never
rm -rf "$tree" && mkdir -p "$tree"
git ls-files -z | tar --null --files-from - --create | tar --extract --directory "$tree"
cd "$tree" || exit 1

declare -a table=()
missed=0

# A mistake can make a test run for ever.
LONGEST=1800

# Names of the first tests that fail, or what else went wrong.
unit() { # crate
  timeout --kill-after 10 "$LONGEST" cargo nextest run --locked -p "$1" --no-fail-fast --status-level fail --failure-output never >"$place/out" 2>&1
  case $? in
    0) return 1 ;;
    124 | 137) echo "no end within $LONGEST s" ;;
  esac
  sed -nE 's/^ *(FAIL|TIMEOUT|SIGABRT) \[[^]]*\] (\([^)]*\) )?//p' "$place/out" | sort -u | head -n 3
}

# The first invariant that a seed breaks.
simulation() {
  cargo build --locked -p gantry-e2e --bin gantry-simulate >"$place/out" 2>&1 || { tail -n 5 "$place/out" >&2; return 1; }
  "$CARGO_TARGET_DIR/debug/gantry-simulate" --seeds "${SEEDS:-0..120}" --failures 1 --as-it-is >"$place/out" 2>&1 && return 1
  awk '/^seed /{ seed = $2 } /^  [^ ]/ && !told { sub(/^ +/, ""); print "seed " seed ": " $0; told = 1 }' "$place/out" | cut -c -110
}

for patch in "$root"/e2e/mutants/*.patch; do
  name="$(basename "$patch" .patch)" short="$(basename "$patch" .patch | cut -d- -f2-)"
  if [ $# -gt 0 ] && [[ " $* " != *" $short "* ]]; then continue; fi
  if ! patch --quiet --fuzz 0 --strip 1 <"$patch"; then
    echo "error: $name does not apply any more" >&2
    echo "hint: plant the same mistake in today's code and write the patch anew" >&2
    missed=1
    break
  fi
  # A mutant that does not compile proves nothing.
  if ! cargo check --locked -p gantry-agent -p gantry-controller >"$place/out" 2>&1; then
    tail -n 20 "$place/out" >&2
    echo "error: $name does not compile" >&2
    missed=1
  else
    crate=gantry-agent
    grep -q '^+++ b/controller' "$patch" && crate=gantry-controller
    tests="$(unit "$crate")"
    seeds="$(simulation)"
    [ -n "$tests$seeds" ] || missed=1
    table+=("$(printf '%-28s | %s\n%-28s | %s' "$name" "tests: $(tr '\n' ' ' <<<"${tests:--}")" "" "simulation: ${seeds:--}")")
    printf '%s\n' "${table[-1]}"
  fi
  patch --quiet --reverse --strip 1 <"$patch"
done

printf '\n== mutants\n'
printf '%s\n' "${table[@]}"
exit "$missed"
