#!/usr/bin/env bash
# Hostile bytes, the long way; the short forms of all three are part of compose/test.sh.
#
#   compose/fuzz.sh mutants [N] [SEED]     mutants of every API and version, in the process
#   compose/fuzz.sh sockets [N] [SEED]     mutants into a running proxy with offload on
#   compose/fuzz.sh coverage [SECONDS] [TARGET...]   libFuzzer, so many seconds a target
#
# N: 19,000,000 and 1,000,000 unless told. Each prints counts, why mutants were refused, memory, and
# fails on a panic, a broken promise, or a count that must not be zero. `coverage` prints the edges
# that are covered and why inputs of the corpus are refused; it needs a C++ compiler, and any
# toolchain does (RUSTUP_TOOLCHAIN=nightly picks one). What libFuzzer finds and its corpus lie in
# protocol-ext/fuzz/ and are not committed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }

cargo=${CARGO:-cargo}
cd "$repo"

mutants() {
    FIREBREAK_MUTANTS=${1:-19000000} FIREBREAK_SEED=${2:-20260727} \
        "$cargo" test --release -p protocol-ext --test hostile -- --nocapture
}

sockets() {
    FIREBREAK_MUTANTS=${1:-1000000} FIREBREAK_SEED=${2:-20260728} \
        "$cargo" test -p firebreak --test it -- --nocapture \
        mutants_of_clients_and_brokers_end_their_own_connections_and_nothing_else
}

# The flags are those of cargo-fuzz without a sanitizer: there is no unsafe code of ours to watch.
coverage() {
    local seconds=${1:-60} fuzz=$repo/protocol-ext/fuzz target triple
    shift || true
    local targets=("$@")
    [ $# -gt 0 ] || targets=(request response tail batch rewrite codec reference)
    need c++ g++
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$repo/target}/fuzz
    local release=$CARGO_TARGET_DIR/release
    "$cargo" build --quiet --release --manifest-path "$fuzz/Cargo.toml" --bin corpus --bin reasons
    "$release/corpus" "$repo/protocol-ext/tests/golden" "$fuzz/corpus"
    export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Clink-dead-code"
    triple=$(rustc -vV | sed -n 's/^host: //p')
    for target in "${targets[@]}"; do
        "$cargo" build --quiet --release --manifest-path "$fuzz/Cargo.toml" --bin "$target" \
            --target "$triple"
        mkdir -p "$fuzz/artifacts/$target"
        say "== $target, $seconds s"
        local log=$fuzz/artifacts/$target.log
        if ! "$CARGO_TARGET_DIR/$triple/release/$target" "$fuzz/corpus/$target" \
            -artifact_prefix="$fuzz/artifacts/$target/" -max_total_time="$seconds" \
            -rss_limit_mb=1024 -malloc_limit_mb=64 -timeout=10 -print_final_stats=1 \
            >"$log" 2>&1; then
            tail -n 60 "$log" >&2
            die "$target: see $fuzz/artifacts/$target"
        fi
        covered "$target" "$log"
        "$release/reasons" "$target" "$fuzz/corpus/$target"
    done
}

# What a log of libFuzzer says at its end: edges covered, of those that there are.
covered() {
    awk -v target="$1" '
        /inline 8-bit counters/ { match($0, /\([0-9]+ inline/); of = substr($0, RSTART + 1, RLENGTH - 8) }
        / cov: / { for (n = 1; n < NF; n++) { if ($n == "cov:") cov = $(n + 1)
                   if ($n == "ft:") ft = $(n + 1) } }
        /stat::number_of_executed_units/ { runs = $NF }
        /stat::peak_rss_mb/ { rss = $NF }
        END { if (cov == "" || runs == "") { print target ": libFuzzer tells nothing"; exit 1 }
              printf "%s: %d edges covered of %d, %d features, %d runs, %d MB at most\n",
                  target, cov, of, ft, runs, rss }' "$2"
}

case ${1:-} in
mutants | sockets | coverage) "$@" ;;
-h | --help) usage ;;
*) usage >&2 && exit 2 ;;
esac
