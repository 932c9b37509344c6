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
--full   all Kafka versions, brokers in trouble, the search for leaked addresses, and its mutants;
         without it: the clients' cases on Kafka 4.3.1
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
need mvn maven
cd "$repo"

say "== format and lints"
cargo fmt --all --check
cargo clippy --workspace --all-targets --all-features -- -D warnings

say "== tests"
cargo test --workspace --lib --bins
cargo test -p protocol-ext
cargo test -p firebreak --test it --test allocations

say "== mutants: every promise is broken on purpose and its check must fail"
cargo test -p firebreak --features failpoints --test it -- mutants --nocapture

case $mode in
default)
    say "== clients on a real Kafka, direct and through the proxy"
    cargo test -p firebreak --test kafka -- on_4_3_1::java on_4_3_1::kcat on_4_3_1::librdkafka \
        on_4_3_1::message on_4_3_1::pipelined on_4_3_1::produce on_4_3_1::requests \
        --skip librdkafka_classic_group
    ;;
full)
    say "== clients on real Kafkas, direct and through the proxy"
    cargo test -p firebreak --test kafka
    cargo test -p firebreak --features failpoints --test kafka -- mutant --nocapture
    ;;
esac
say "all passed"
