#!/usr/bin/env bash
# docker/build-scratch.sh [TAG]: the image from a locally built static binary, without pulling one.
set -euo pipefail

tag=${1:-firebreak}
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repo"
target=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS='-C target-feature=+crt-static' cargo build --release -p firebreak --target "$target"
built=$(cargo metadata --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir "$context/objects"
install -m 755 "$built/$target/release/firebreak" "$context/firebreak"
strip --strip-debug "$context/firebreak"
install -m 644 docker/nsswitch.conf "$context/nsswitch.conf"
install -m 644 /etc/ssl/certs/ca-certificates.crt "$context/ca-certificates.crt"
# The classic builder: BuildKit would ask a registry for its front end.
DOCKER_BUILDKIT=0 docker build -f docker/Dockerfile.scratch -t "$tag" "$context"
