#!/usr/bin/env bash
# Every figure of the bench contract in one command: see benches/README.md.
#
#   benches/run.sh [--quick] [--only CELL,...] [--rounds N] [--features] [--help]
#
# `--help` lists all flags and cells.
# Builds the release binaries, fetches Kafka's jars, starts one broker with a listener per mode,
# runs the modes in turn, prints a table per cell and writes JSON. CARGO names another cargo.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../compose/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../compose/lib.sh"

case " $* " in *" --help "* | *" -h "*)
    need python3 python3
    PYTHONDONTWRITEBYTECODE=1 exec python3 "$repo/benches/run.py" --help
    ;;
esac
need python3 python3
need java default-jre-headless
need mvn maven
need cc build-essential
command -v "${CARGO:-cargo}" >/dev/null ||
    die "cargo is missing: install Rust from https://rustup.rs"
jars=$("$compose/jars.sh")
export PYTHONDONTWRITEBYTECODE=1
cd "$repo"
packages=(-p firebreak -p firebreak-benches)
case " $* " in *" --without-firebreak "*) packages=(-p firebreak-benches) ;; esac
"${CARGO:-cargo}" build --quiet --release "${packages[@]}" >&2 || die "the build failed"
target=$(cargo metadata --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
exec python3 benches/run.py --bin "$target/release" --jars "$jars" "$@"
