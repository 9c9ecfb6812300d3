#!/usr/bin/env bash
# Fetches the newest Docker Engine that Debian has into a directory, beside the installed one, which stays as it is.
set -euo pipefail
to="$1"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"$(dirname "$0")/debian-packages.sh" sid "$work" docker.io containerd
rm -rf "$to"
mkdir -p "$to"
cp "$work"/usr/sbin/dockerd "$work"/usr/bin/{containerd,containerd-shim-runc-v2} "$to"
"$to/dockerd" --version
