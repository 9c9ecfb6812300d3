#!/usr/bin/env bash
# Unpacks packages of another Debian release into a directory; what is installed stays as it is.
#
# usage: debian-packages.sh RELEASE DIRECTORY PACKAGE...
set -euo pipefail
release="$1" to="$2"
shift 2

# shellcheck disable=SC1091
. /etc/os-release
if [ "${ID:-}" != debian ]; then
  echo "error: this fetches from Debian's archive and works on Debian only" >&2
  exit 1
fi
mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/packages" "$to"
touch "$work/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" >"$work/sources.list"
apt() {
  apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" \
    -o Dir::Cache="$work/cache" -o Dir::State::status="$work/status" -o APT::Sandbox::User="$(id -un)" \
    -o Acquire::Languages=none "$@"
}
apt update
(cd "$work/packages" && apt download "$@")
for package in "$work"/packages/*.deb; do
  dpkg-deb -x "$package" "$to"
done
