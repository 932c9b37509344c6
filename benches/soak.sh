#!/usr/bin/env bash
# Kill -9 of Firebreak again and again under idempotent and transactional load on a real Kafka.
#
#   benches/soak.sh [--seconds 300] [--kill-every 5] [--brokers 1|3] [--seed N] [--keep]
#                   [-- MORE FLAGS OF soak]
#
# Starts Kafka and Firebreak (offload above 10,000 bytes, a local store), has `soak` drive and kill,
# then everything is read back and compared. Exit code 1 when a count that must be zero is not, one
# that must not be is, or the gap that clients see is too long. --seconds 30 is for everyday. When a
# run fails its logs stay, with --keep also the broker's log and the objects. FIREBREAK_BIN names a
# built proxy, CARGO another cargo.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../compose/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../compose/lib.sh"

seconds=300 kill_every=5 brokers=1 seed=$((RANDOM * 32768 + RANDOM)) keep=no threshold=10000 more=()
export PYTHONDONTWRITEBYTECODE=1

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
        --seconds) seconds=${2:?--seconds wants a value} && shift 2 ;;
        --kill-every) kill_every=${2:?--kill-every wants a value} && shift 2 ;;
        --brokers) brokers=${2:?--brokers wants a value} && shift 2 ;;
        --seed) seed=${2:?--seed wants a value} && shift 2 ;;
        --keep) keep=yes && shift ;;
        --) shift && more=("$@") && break ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
        esac
    done
    [[ $seconds$kill_every$brokers$seed =~ ^[0-9]+$ ]] || die "numbers are wanted"
    [ "$seconds" -ge 10 ] && [ "$kill_every" -ge 1 ] || die "at least 10 s, a kill every 1 s"
}

build() {
    local what=(-p firebreak-benches --bin soak) target
    if [ -z "${FIREBREAK_BIN:-}" ]; then what+=(-p firebreak --bin firebreak); fi
    cd "$repo"
    "${CARGO:-cargo}" build --quiet --release "${what[@]}" >&2 || die "the build failed"
    target=$(cargo metadata --no-deps --format-version 1 |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    soak=$target/release/soak
    firebreak=${FIREBREAK_BIN:-$target/release/firebreak}
    out=$target/benches/soak-$(date -u +%Y%m%dT%H%M%SZ).json
    mkdir -p "${out%/*}"
}

# One bootstrap port, eight for virtual brokers, one for the admin port.
write_config() {
    local ports
    read -ra ports <<<"$(python3 "$compose/net.py" free-ports 10)"
    proxy=127.0.0.1:${ports[0]}
    cat >"$work/firebreak.toml" <<TOML
[listen]
bootstrap = "$proxy"
advertise = "127.0.0.1"
ports = "${ports[1]}-${ports[8]}"

[admin]
address = "127.0.0.1:${ports[9]}"

[[cluster]]
name = "soak"
bootstrap = ["${direct//,/\", \"}"]

[store]
kind = "local"
path = "$work/objects"

[[offload]]
topics = ["soak-*"]
threshold_bytes = $threshold
TOML
}

finish() {
    local code=$?
    stop_pid "$work/soak.pid" "$work/firebreak.toml"
    stop_pid "$work/firebreak.pid" "$work/firebreak.toml"
    if [ -d "$work/kafka" ]; then "$compose/kafka.sh" stop --dir "$work/kafka"; fi
    if [ $code = 0 ]; then
        rm -rf "$work"
    else
        if [ $keep = no ]; then rm -rf "$work/objects" "$work"/kafka/node-*/data; fi
        say "journal and logs: $work"
    fi
    exit $code
}

machine() {
    echo "$(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg), Kafka $kafka_version_default x" \
        "$brokers, firebreak $("$firebreak" --version | cut -d' ' -f2)" \
        "$(git -C "$repo" describe --always --dirty 2>/dev/null), $(date -u +%FT%TZ)"
}

parse "$@"
need python3 python3
need java default-jre-headless
need mvn maven
need cc build-essential
need make make
command -v "${CARGO:-cargo}" >/dev/null ||
    die "cargo is missing: install Rust from https://rustup.rs"
build
work=$(mktemp -d "${TMPDIR:-/tmp}/firebreak-soak.XXXXXX")
trap finish EXIT
trap 'exit 130' INT TERM
direct=$("$compose/kafka.sh" start --brokers "$brokers" --dir "$work/kafka")
write_config
machine
# In the background, so that a signal to this script is not put off until the load has ended.
"$soak" --firebreak "$firebreak" --config "$work/firebreak.toml" --proxy "$proxy" \
    --brokers "$direct" --replicas "$brokers" --threshold "$threshold" --dir "$work" \
    --out "$out" --seconds "$seconds" --kill-every "$kill_every" --seed "$seed" \
    "${more[@]}" &
echo $! >"$work/soak.pid"
passed=0
wait $! || passed=$?
if [ "$passed" -gt 1 ]; then say "soak itself ended with code $passed"; fi
rm -f "$work/soak.pid"
cp "$work/journal.log" "${out%.json}.journal.log"
say "figures: $out, beside it the journal"
exit $((passed > 0))
