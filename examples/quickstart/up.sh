#!/usr/bin/env bash
# `make quickstart`: installs what is missing, builds, runs `gantry dev` with this host, applies the manifests beside this file.
set -euo pipefail
# shellcheck source=examples/quickstart/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

# All of it goes with quickstart-down, so nothing of anybody else's may be in it.
if [ ! -e "$marker" ] && [ -e "$dir" ] && { [ ! -d "$dir" ] || [ -n "$(ls -A "$dir")" ]; }; then
  fail "$dir is not empty and quickstart did not make it" "name another directory in GANTRY_QUICKSTART_DIR, which need not exist"
fi

# --- what is needed -------------------------------------------------------------------------------------------------
engine_answers() { docker -H "$1" version >/dev/null 2>&1; }

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need cc build-essential
need curl curl
need docker docker.io
need kubectl kubernetes-client
engine_answers "${DOCKER_HOST:-unix:///var/run/docker.sock}" || need dockerd docker.io
if ! command -v initdb >/dev/null 2>&1 && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
  missing+=(postgresql)
fi
has_static_busybox() { command -v busybox >/dev/null 2>&1 && ! ldd "$(command -v busybox)" >/dev/null 2>&1; }

is_debian() { [ -r /etc/os-release ] && (. /etc/os-release && [[ " $ID ${ID_LIKE:-} " == *" debian "* ]]); }
if ! is_debian; then
  command -v cargo >/dev/null 2>&1 || missing+=("rustup (https://rustup.rs)")
  has_static_busybox || missing+=("busybox, linked statically")
  if [ ${#missing[@]} -gt 0 ]; then
    fail "this is neither Debian nor Ubuntu, and these are missing: $(printf '%s, ' "${missing[@]}" | sed 's/, $//')" \
      "install them (a C compiler, the Docker Engine and its CLI, PostgreSQL's server programs, kubectl), then run make quickstart again"
  fi
fi

if [ ${#missing[@]} -gt 0 ]; then
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  say "installing ${missing[*]}"
  as_root apt-get update -qq
  install() { as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" </dev/null; }
  for package in "${missing[@]}"; do
    apt-cache show "$package" >/dev/null 2>&1 || fail "this release has no package $package" \
      "install it by hand (kubectl: https://kubernetes.io/docs/tasks/tools/), then run make quickstart again"
  done
  if [[ " ${missing[*]} " == *" postgresql "* ]]; then
    # Only its programs are needed: no server is made for the machine while the package is installed.
    install postgresql-common
    conf=/etc/postgresql-common/createcluster.conf
    as_root cp "$conf" "$conf.before-gantry"
    echo "create_main_cluster = false" | as_root tee -a "$conf" >/dev/null
    install postgresql
    as_root mv "$conf.before-gantry" "$conf"
  fi
  install "${missing[@]}"
fi
if [ -z "${GANTRY_QUICKSTART_BIN:-}" ] && ! command -v cargo >/dev/null 2>&1; then
  say "installing the Rust toolchain manager"
  if apt-cache policy rustup 2>/dev/null | grep -q 'Candidate: [0-9]'; then
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq rustup </dev/null
  else
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --quiet --profile minimal --default-toolchain none ||
      fail "rustup could not be installed" "install it by hand: https://rustup.rs"
  fi
fi

# --- build ----------------------------------------------------------------------------------------------------------
if [ -n "${GANTRY_QUICKSTART_BIN:-}" ]; then
  bin="$GANTRY_QUICKSTART_BIN"
  say "using what is built in $bin"
else
  say "building (a first build takes several minutes)"
  SQLX_OFFLINE=true cargo build --locked -p gantry -p gantry-controller -p gantry-agent
  bin="$(cargo metadata --locked --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')/debug"
fi

mkdir -p "$dir"
touch "$marker"

# --- a Docker Engine: the machine's where we may use it, else one of our own ----------------------------------------
docker_host="${DOCKER_HOST:-unix:///var/run/docker.sock}"
start_engine() {
  as_root mkdir -p "$dir/docker" "$run_dir"
  # shellcheck disable=SC2016
  as_root sh -c 'exec setsid dockerd "$@" >>"$0" 2>&1 </dev/null &' "$dir/dockerd.log" \
    --data-root "$dir/docker" --exec-root "$run_dir/exec" --pidfile "$run_dir/dockerd.pid" \
    -H "unix://$run_dir/docker.sock" --group "$(id -gn)" \
    --bridge=none --iptables=false --ip-masq=false "$@"
  for _ in $(seq 300); do
    engine_answers "unix://$run_dir/docker.sock" && return
    sleep 0.1
  done
  if pid="$(running "$run_dir/dockerd.pid" dockerd)"; then end "$pid" 20 as_root; fi
  return 1
}
if engine_answers "$docker_host"; then
  say "using the Docker Engine at $docker_host"
else
  docker_host="unix://$run_dir/docker.sock"
  if engine_answers "$docker_host"; then
    say "using the Docker Engine that an earlier quickstart started"
  else
    say "starting a Docker Engine for this quickstart"
    start_engine || start_engine --storage-driver=vfs ||
      fail "dockerd does not come up" "its reason is at the end of $dir/dockerd.log"
  fi
fi
echo "$docker_host" >"$dir/docker-host"
engine() { docker -H "$docker_host" "$@"; }

# --- gantry dev -----------------------------------------------------------------------------------------------------
stop_gantry
say "starting gantry dev; its log is $dir/gantry.log"
rm -f "$dir/ready"
setsid "$bin/gantry" dev --data-dir "$dir/data" --docker-host "$docker_host" --instance quickstart \
  ${GANTRY_QUICKSTART_LISTEN:+--listen "$GANTRY_QUICKSTART_LISTEN"} \
  ${GANTRY_QUICKSTART_METRICS:+--agent-metrics-listen "$GANTRY_QUICKSTART_METRICS"} \
  >"$dir/ready" 2>"$dir/gantry.log" </dev/null &
pid=$!
echo "$pid" >"$dir/gantry.pid"
until grep -qs '^stop:' "$dir/ready"; do
  if ! kill -0 "$pid" 2>/dev/null; then
    tail -n 20 "$dir/gantry.log" >&2
    fail "gantry dev ended" "the end of its log is above"
  fi
  sleep 0.2
done
export KUBECONFIG="$dir/data/kubeconfig"
k() { kubectl --cache-dir "$dir/kube-cache" "$@"; }
say "waiting for this host"
for _ in $(seq 300); do
  k get dockerinstance quickstart >/dev/null 2>&1 && break
  sleep 0.2
done
k wait --for=condition=Ready dockerinstance/quickstart --timeout=90s || {
  k describe dockerinstance quickstart || tail -n 20 "$dir/gantry.log" >&2
  fail "this host's agent is not ready" "the log is $dir/gantry.log"
}

# --- something to operate on ----------------------------------------------------------------------------------------
say "making an image and a few containers"
if ! engine image inspect "$image" >/dev/null 2>&1; then
  rootfs="$(mktemp -d)"
  mkdir -p "$rootfs/bin" "$rootfs/tmp"
  if has_static_busybox; then
    cp "$(command -v busybox)" "$rootfs/bin/busybox"
  else
    # Not installed: the package would replace the machine's own busybox.
    package="$(mktemp -d)"
    (cd "$package" && apt-get -o APT::Sandbox::User="$(id -un)" download -qq busybox-static && dpkg-deb -x ./*.deb .)
    cp "$(find "$package" -type f -path '*bin/busybox' -print -quit)" "$rootfs/bin/busybox"
    rm -rf "$package"
  fi
  ln -s busybox "$rootfs/bin/sh"
  ln -s busybox "$rootfs/bin/sleep"
  tar -C "$rootfs" -c . | engine import - "$image" >/dev/null
  rm -rf "$rootfs"
fi
# Done once is done for good: a second quickstart deletes the finished operations and states them anew.
k delete --ignore-not-found -f examples/quickstart/ >/dev/null
engine rm -f "${containers[@]}" >/dev/null 2>&1 || true
serve='trap "exit 0" TERM; while true; do sleep 1 & wait $!; done'
make_container() { engine "$1" ${2:+"$2"} --network none --name "$3" "$image" sh -c "$serve" >/dev/null; }
make_container create "" quickstart-web
make_container run -d quickstart-worker
make_container run -d quickstart-cache
make_container run -d quickstart-batch
make_container create "" quickstart-old
make_container create "" quickstart-staging

# --- the point of it all --------------------------------------------------------------------------------------------
say "kubectl apply -f examples/quickstart/"
k apply -f examples/quickstart/
say "kubectl wait --for=condition=Complete -f examples/quickstart/"
k wait --for=condition=Complete -f examples/quickstart/ --timeout=120s || {
  k describe operations
  fail "not every operation is complete" "the log is $dir/gantry.log"
}
say "kubectl get dockerinstances,operations"
k get dockerinstances,operations
cat <<END

It runs. To go on:
  export KUBECONFIG='$KUBECONFIG'
  kubectl get gantry                     # hosts and operations
  kubectl describe operation start-web   # what was done, and when
  kubectl explain operation.spec         # what can be asked
  $bin/gantry agent install-command      # bring in another host
  tail -f '$dir/gantry.log'              # the log
  make quickstart-down                   # stop it and remove its data
END
