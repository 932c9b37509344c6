#!/usr/bin/env bash
# The simulation, the long way; twenty seeds are part of compose/test.sh.
#
#   compose/sim.sh [--seeds N] [--first S]   so many seeds (2000 unless told) from S (0) on
#   compose/sim.sh --seed S [--trace]        one seed, with --trace event by event
#   compose/sim.sh --twice [N]               so many seeds (20 unless told) twice: the same bytes
#   compose/sim.sh --mutants [NAME]          every promise broken on purpose, or one of them
#   compose/sim.sh --crowd [CLIENTS]         so many clients (20000 unless told), half of them slow
#
# The proxy, four fake brokers and a dozen clients run in one process on a simulated network and
# clock. Brokers and the proxy crash and come back under other ids, links are cut, hold messages or
# are slow, names have no address, leaders and the controller move, the store is slow and fails.
# Each run prints totals of all that, and fails on the first seed in which a promise is broken, or
# if some trouble never came.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }

value() { [ $# -gt 1 ] || die "$1 needs a value"; }

test=promises_hold seeds=2000 first=0
while [ $# -gt 0 ]; do
    case $1 in
    --seeds) value "$@" && seeds=$2 && shift ;;
    --first) value "$@" && first=$2 && shift ;;
    --seed) value "$@" && export FIREBREAK_SIM_SEED=$2 && shift ;;
    --trace) export FIREBREAK_SIM_TRACE=1 ;;
    --twice)
        test=the_same_seed
        case ${2:-} in '' | -*) ;; *) export FIREBREAK_SIM_TWICE=$2 && shift ;; esac
        ;;
    --mutants)
        test=every_fault
        case ${2:-} in '' | -*) ;; *) export FIREBREAK_MUTANT=$2 && shift ;; esac
        ;;
    --crowd)
        test=a_crowd
        case ${2:-} in '' | -*) ;; *) export FIREBREAK_SIM_CLIENTS=$2 && shift ;; esac
        ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done

cd "$repo"
export FIREBREAK_SIM_SEEDS=$seeds FIREBREAK_SIM_FIRST=$first
exec "${CARGO:-cargo}" test -p firebreak --features sim,failpoints --test sim -- "$test" --nocapture
