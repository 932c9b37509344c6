#!/usr/bin/env bash
# The whole integration suite with every frame treated in one way, whatever would do:
#
#   compose/forced.sh [opaque | decode | reencode]...     all three unless told
#
# opaque    whatever can stream streams, however small it is
# decode    every frame is held whole and walked to its end
# reencode  the same, and written anew by the walker; bytes are compared where there is one way only
#
# Only builds with the feature `failpoints` know the modes (FIREBREAK_FORCED).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Tests that are about the very thing that a mode forbids.
declare -A left_out=(
    [opaque]=""
    [decode]=""
)
left_out[reencode]=${left_out[decode]}

cd "$repo"
modes=("$@")
[ $# -gt 0 ] || modes=(opaque decode reencode)
for mode in "${modes[@]}"; do
    [ -n "${left_out[$mode]+known}" ] || die "'$mode' is not one of opaque, decode, reencode"
    say "== forced: $mode"
    skips=()
    for test in ${left_out[$mode]}; do skips+=(--skip "$test"); done
    FIREBREAK_FORCED=$mode "${CARGO:-cargo}" test -p firebreak --features failpoints --test it -- \
        --skip mutants::every_check "${skips[@]}"
done
