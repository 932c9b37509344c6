#!/usr/bin/env bash
# The simulation, the long way; twenty seeds are part of compose/test.sh.
#
#   compose/sim.sh [--seeds N] [--first S]   so many seeds (2000 unless told) from S (0) on
#   compose/sim.sh --seed S [--trace]        one seed, with --trace event by event
#   compose/sim.sh --mutants [NAME]          every promise broken on purpose, or one of them
#
# The proxy, four fake brokers and a dozen clients run in one process on a simulated network and
# clock. Brokers and the proxy crash and come back under other ids, links are cut, hold messages or
# are slow, leaders and the controller move, the store is slow and fails. Each run prints totals of
# all that, and fails on the first seed in which a promise is broken, or if some trouble never came.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }

value() { [ $# -gt 1 ] || die "$1 needs a value"; }

seeds=2000 first=0 seed='' mutants=no
while [ $# -gt 0 ]; do
    case $1 in
    --seeds) value "$@" && seeds=$2 && shift ;;
    --first) value "$@" && first=$2 && shift ;;
    --seed) value "$@" && seed=$2 && shift ;;
    --trace) export FIREBREAK_SIM_TRACE=1 ;;
    --mutants)
        mutants=yes
        case ${2:-} in '' | -*) ;; *) export FIREBREAK_MUTANT=$2 && shift ;; esac
        ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done

cd "$repo"
cargo=${CARGO:-cargo}
if [ "$mutants" = yes ]; then
    exec "$cargo" test -p firebreak --features failpoints --test sim -- every_fault --nocapture
fi
export FIREBREAK_SIM_SEEDS=$seeds FIREBREAK_SIM_FIRST=$first
if [ -n "$seed" ]; then export FIREBREAK_SIM_SEED=$seed; fi
exec "$cargo" test -p firebreak --test sim -- promises_hold --nocapture
