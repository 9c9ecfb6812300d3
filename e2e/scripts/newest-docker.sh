#!/usr/bin/env bash
# Fetches the newest Docker Engine that Debian has into a directory, beside the installed one, which stays as it is.
set -euo pipefail
to="$1"

# shellcheck disable=SC1091
. /etc/os-release
if [ "${ID:-}" != debian ]; then
  echo "error: this fetches from Debian's archive and works on Debian only" >&2
  exit 1
fi
mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/packages" "$work/root"
touch "$work/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$work/sources.list"
apt() {
  apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" \
    -o Dir::Cache="$work/cache" -o Dir::State::status="$work/status" -o APT::Sandbox::User="$(id -un)" \
    -o Acquire::Languages=none "$@"
}
apt update
(cd "$work/packages" && apt download docker.io containerd)
for package in "$work"/packages/*.deb; do
  dpkg-deb -x "$package" "$work/root"
done
rm -rf "$to"
mkdir -p "$to"
cp "$work"/root/usr/sbin/dockerd "$work"/root/usr/bin/{containerd,containerd-shim-runc-v2} "$to"
"$to/dockerd" --version
