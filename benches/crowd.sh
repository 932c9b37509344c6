#!/usr/bin/env bash
# 8,000 connections, half of them slow or silent: what do they cost the other half, and what memory?
#
#   benches/crowd.sh [--seconds 20] [--rounds 3] [--healthy 4000] [--slow 4000] [--rate 2000]
#
# Builds the release binaries and runs `crowd` (src/bin/crowd/) against a broker of its own. Prints
# a line per run, the ratio of the healthy clients' p99 and the proxy's peak RSS, and writes JSON to
# target/benches/. Exit code 1 when a bar is missed or something that had to happen did not.
# FIREBREAK_BIN names a built proxy, CARGO another cargo. Needs 18,000 open files per process.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../compose/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../compose/lib.sh"

case " $* " in *" --help "* | *" -h "*)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
    exit 0
    ;;
esac
command -v "${CARGO:-cargo}" >/dev/null ||
    die "cargo is missing: install Rust from https://rustup.rs"
ulimit -n 18000 2>/dev/null || [ "$(ulimit -n)" -ge 18000 ] ||
    die "18,000 open files are needed: ulimit -n says $(ulimit -n)"
cd "$repo"
what=(-p firebreak-benches --no-default-features --bin crowd)
if [ -z "${FIREBREAK_BIN:-}" ]; then what+=(-p firebreak --bin firebreak); fi
"${CARGO:-cargo}" build --quiet --release "${what[@]}" >&2 || die "the build failed"
target=$(cargo metadata --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
out=$target/benches/crowd-$(date -u +%Y%m%dT%H%M%SZ).json
mkdir -p "${out%/*}"
echo "crowd: $(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg), $(date -u +%FT%TZ)," \
    "$(git describe --always --dirty 2>/dev/null)"
passed=0
"$target/release/crowd" --firebreak "${FIREBREAK_BIN:-$target/release/firebreak}" --out "$out" \
    "$@" || passed=$?
say "figures: $out"
exit $((passed > 0))
