#!/usr/bin/env bash
# The README's second command: everything that must hold, in the order in which it fails fastest.
#
# format -> lints -> unit, property, golden, integration and real-Kafka tests -> mutants.
# Installs what is missing. Kafka's jars are kept in .cache/ (or $FIREBREAK_CACHE).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'USAGE'
usage: compose/test.sh [--quick]

--quick  leaves out the tests that start a real Kafka
USAGE
}

quick=no
case ${1:-} in
'') ;;
--quick) quick=yes ;;
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
if [ "$quick" = yes ]; then
    cargo test --workspace --lib --bins
    cargo test -p protocol-ext
    cargo test -p firebreak --test it --test tidy
else
    cargo test --workspace
fi

say "== mutants: every promise is broken on purpose and its check must fail"
cargo test -p firebreak --features failpoints --test it -- mutants --nocapture
[ "$quick" = yes ] ||
    cargo test -p firebreak --features failpoints --test kafka -- mutant --nocapture
say "all passed"
