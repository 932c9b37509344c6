#!/usr/bin/env bash
# Rolling restarts of a real Kafka and of two proxies under load: the long form of one test.
#
#   compose/rolling.sh [--rounds 10]
#
# Three brokers (copies 3, min.insync.replicas 2) and two proxies are restarted one by one, as often
# as --rounds says, while Java, librdkafka and franz-go produce and read. Prints what happened; the
# exit code is 1 when anything was lost, doubled, or seen as an error by a client.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }

rounds=10
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=${2:?--rounds wants a value} && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done
[[ $rounds =~ ^[1-9][0-9]*$ ]] || die "--rounds wants a number"
command -v cargo >/dev/null || die "Rust is missing: see https://rustup.rs"
need cc gcc
need make make
need java default-jre-headless
need javac default-jdk-headless
need mvn maven
need go golang-go
cd "$repo"
FIREBREAK_ROLLS=$rounds exec "${CARGO:-cargo}" test -p firebreak --test kafka -- \
    on_4_3_1::rolling --nocapture
