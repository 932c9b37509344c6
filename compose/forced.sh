#!/usr/bin/env bash
# A whole suite with every frame treated in one way, whatever would do:
#
#   compose/forced.sh [--kafka] [opaque | decode | reencode]...     all three unless told
#
# The integration suite (a fake broker), or with --kafka every case on Kafka 4.3.1, TLS and SASL
# included; FIREBREAK_CASES="WORD..." picks some of them.
#
# opaque    whatever can stream streams, however small it is
# decode    every frame is held whole and walked to its end
# reencode  the same, and written anew by the walker; bytes are compared where there is one way only
#
# Only builds with the feature `failpoints` know the modes (FIREBREAK_FORCED).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Tests that are about the very thing that a mode forbids: that frames stream and so take no memory,
# how requests are classed, and what is refused unread.
whole="backpressure::a_broker_that_does_not_read backpressure::readers_that_do_not_read
    budget::many_large_values_at_once classes:: cut_through::the_first_bytes_of_a_large
    cut_through::the_same_for_an_answer log_shapes::a_bomb_in_the_log lifecycle::a_drain_answers
    offload::small_requests_are_not_held metrics::requests_bytes_and room::a_question_padded
    tails::large_answers_drop"
declare -A left_out=(
    [opaque]=""
    [decode]="$whole"
)
# What a mutant is written anew as may differ from what came, which is told as a fault of ours.
left_out[reencode]="$whole hostile::mutants::mutants_of_clients"

cd "$repo"
suite=it
if [ "${1:-}" = --kafka ]; then
    suite=kafka
    shift
fi
read -ra cases <<<"${FIREBREAK_CASES:-on_4_3_1 secured_4_3_1}"
modes=("$@")
[ $# -gt 0 ] || modes=(opaque decode reencode)
for mode in "${modes[@]}"; do
    [ -n "${left_out[$mode]+known}" ] || die "'$mode' is not one of opaque, decode, reencode"
    say "== forced: $mode"
    if [ $suite = kafka ]; then
        FIREBREAK_FORCED=$mode "${CARGO:-cargo}" test -p firebreak --features failpoints \
            --test kafka -- "${cases[@]}"
        continue
    fi
    skips=()
    for test in ${left_out[$mode]}; do skips+=(--skip "$test"); done
    FIREBREAK_FORCED=$mode "${CARGO:-cargo}" test -p firebreak --features failpoints --test it -- \
        --skip mutants::every_check "${skips[@]}"
done
