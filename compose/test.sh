#!/usr/bin/env bash
# The README's second command: everything that must hold, in the order in which it fails fastest.
#
# format -> lints -> unit, property, golden and integration tests -> mutants -> real Kafka.
# Installs what is missing. Kafka's jars are kept in .cache/ (or $FIREBREAK_CACHE).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'USAGE'
usage: compose/test.sh [--quick | --full]

--quick  leaves out the tests that start a real Kafka
--full   every case on Kafka 4.3.1, 4.1.0 and 3.9.1, also with versitygw as the store
         without it: every case on 4.3.1, of those with TLS and SASL some; on the others the search
         for leaked addresses and leaders that move under load
USAGE
}

mode=default
case ${1:-} in
'') ;;
--quick | --full) mode=${1#--} ;;
-h | --help) usage && exit 0 ;;
*) usage >&2 && exit 2 ;;
esac

command -v cargo >/dev/null || die "Rust is missing: see https://rustup.rs"
need kcat kcat
need cc gcc
need make make
need java default-jre-headless
need javac default-jdk-headless
need mvn maven
need redis-server redis-server
if [ "$mode" != quick ]; then
    need go golang-go
    need openssl openssl
    need faketime faketime
    need python3 python3
    need_venv
fi
cd "$repo"

say "== format and lints"
cargo fmt --all --check
cargo clippy --workspace --all-targets --all-features -- -D warnings

say "== tests"
cargo test --workspace --lib --bins
cargo test -p protocol-ext
cargo test -p firebreak --test tidy --test it --test allocations

say "== simulation: seeds of trouble, each promise kept; the same seed gives the same bytes; a crowd"
simulation=(cargo test -p firebreak --features sim,failpoints --test sim --)
"${simulation[@]}" --skip every_fault --nocapture

say "== mutants: every promise is broken on purpose and its check must fail"
cargo test -p firebreak --features failpoints --test it -- mutants --nocapture
say "== what only a fault can provoke, and what is done then"
cargo test -p firebreak --features failpoints --test it -- \
    durable:: full:: gate:: named:: resting:: that_panics every_frame_is_held_whole
"${simulation[@]}" every_fault --nocapture

if [ "$mode" != quick ]; then
    cases=() mutants=mutant
    if [ "$mode" = default ]; then
        cases=(on_4_3_1 virtual_topics_4_3_1 offload_4_3_1 no_answer_names trouble_leader_moves)
        cases+=(secured_4_3_1::{sasl_ends,one_port,expired,writes_forbidden})
        mutants=mutants::
    fi
    say "== our tables against Kafka's own message definitions"
    cargo test -p firebreak --test definitions
    say "== clients on real Kafkas, direct and through the proxy"
    cargo test -p firebreak --test kafka -- "${cases[@]}"
    say "== what is promised of addresses (--full: and of security) is broken and must be seen"
    cargo test -p firebreak --features failpoints --test kafka -- "$mutants" --nocapture
fi
say "all passed"
