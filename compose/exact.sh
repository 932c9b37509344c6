#!/usr/bin/env bash
# Exactly once on a real Kafka while everything breaks: the long form of one test.
#
#   compose/exact.sh [--seconds 600]
#
# Idempotent producers of Java, librdkafka and franz-go write to a virtual topic with days through
# two proxies, while brokers and proxies are killed (-9), a proxy is stopped for 40 s and goes on,
# answers are lost and segments are sealed. Every acknowledged record must be read once, in order.
# Prints what happened; goes on, for up to three times as long, until all that was to break did. The
# exit code is 1 when a promise is broken, or when something did not break even then.
# FRANZ_GO_LOG names a file for everything that franz-go says.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }

seconds=600
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=${2:?--seconds wants a value} && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done
[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "--seconds wants a number"
[ "$seconds" -ge 60 ] || die "a stopped proxy takes 40 s: --seconds wants 60 or more"
command -v cargo >/dev/null || die "Rust is missing: see https://rustup.rs"
need cc gcc
need make make
need java default-jre-headless
need javac default-jdk-headless
need mvn maven
need go golang-go
cd "$repo"
FIREBREAK_EXACT_SECONDS=$seconds exec "${CARGO:-cargo}" test -p firebreak --test kafka -- \
    exact_4_3_1::exactly --nocapture
