#!/usr/bin/env bash
# Says what `make test` needs and does not find; installs nothing.
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need cargo-nextest "cargo-nextest (cargo install --locked cargo-nextest)"
need dockerd "docker.io"
need docker "docker.io"
need docker-registry "docker-registry"
need podman "podman"
need kubectl "kubectl"
need busybox "busybox-static"
need nginx "nginx-light"
need ip "iproute2"
need iptables "iptables"
need faketime "faketime"
need npm "npm"
need script "bsdutils"
need zsh "zsh"
need fish "fish"
need ssh-keygen "openssh-client"
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=("python3-venv")
[ -c /dev/net/tun ] || missing+=("/dev/net/tun (modprobe tun)")
if ! command -v postgres >/dev/null 2>&1 && ! compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; then
  missing+=("postgresql")
fi
if [ "$(id -u)" != 0 ]; then
  echo "error: the end-to-end tests start Docker Engines of their own, which takes root" >&2
  echo "hint: run 'sudo make test', or the other crates alone: cargo nextest run --workspace --exclude gantry-e2e" >&2
  exit 1
fi
if [ ${#missing[@]} -gt 0 ]; then
  echo "error: these are missing: $(printf '%s, ' "${missing[@]}" | sed 's/, $//')" >&2
  echo "hint: names without a bracket are packages of Debian and Ubuntu" >&2
  exit 1
fi

# The same places as the tests look in.
versions="$(kubectl version --client -o json | sed -nE 's/.*"gitVersion": *"v?([^"]*)".*/\1/p' | head -n 1)"
beside="$(dirname "$(readlink -f "$(command -v kubectl)")")"
for version in 1.27 1.30 1.33; do
  for dir in "${KUBECTL_VERSIONS:-}" ${PATH//:/ } "$beside"; do
    if [ -f "$dir/kubectl.$version" ]; then
      versions+=" $version"
      break
    fi
  done
done
echo "kubectl in these versions: $versions"
