#!/usr/bin/env bash
# Builds the image of Dockerfile.timescaledb, and makes its Debian base first where no image registry can be reached.
# DEBIAN_MIRROR names another mirror than debootstrap's own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

IMAGE=${1:-arbstore-timescaledb:pg17}
BASE=debian:trixie-slim
PULL_TIMEOUT=60 # seconds; a registry behind a firewall may never answer at all

die() {
    echo "build.sh: $*" >&2
    exit 1
}

make_base() {
    [ "$(id -u)" = 0 ] || die "making $BASE takes root (debootstrap); run this as root, or bring the image yourself"
    if ! command -v debootstrap >/dev/null; then
        echo "installing debootstrap …"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends debootstrap >/dev/null
    fi
    root=$(mktemp -d)
    # debootstrap mounts /proc in there; an interrupted run must not delete through it.
    trap 'rm -rf --one-file-system "$root"' EXIT
    echo "making $BASE with debootstrap …"
    debootstrap --variant=minbase trixie "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$root.log" 2>&1 || {
        tail -n 20 "$root.log" >&2
        die "debootstrap failed; its whole log is $root.log"
    }
    rm -rf "$root.log" "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    tar -C "$root" -c . | docker import --change 'CMD ["bash"]' - "$BASE" >/dev/null
}

docker info >/dev/null 2>&1 || die "no Docker engine answers; start one (dockerd) and try again"

if ! docker image inspect "$BASE" >/dev/null 2>&1; then
    timeout "$PULL_TIMEOUT" docker pull --quiet "$BASE" 2>/dev/null || make_base
fi

# The host's network, because a container's own may have no name server where registries cannot be reached either.
docker build --network host --build-arg "BASE=$BASE" --tag "$IMAGE" --file Dockerfile.timescaledb .
