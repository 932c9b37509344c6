#!/usr/bin/env bash
# Kill -9 of Firebreak again and again under idempotent and transactional load on a real Kafka.
#
#   benches/soak.sh [--seconds 300] [--kill-every 5] [--brokers 1|3] [--seed N] [--keep]
#                   [--store local|moto|versitygw] [--large N] [--gap-p99-max 1.5]
#                   [-- MORE FLAGS OF soak]
#
# Starts Kafka and Firebreak (offload above 10,000 bytes, a local store or an S3 service), has
# `soak` drive and kill, then everything is read back and compared, and one topic is copied by
# `rehydrate` and read without a proxy. Then the store is looked at: `fsck --deep`, both passes of
# `gc` days later, `fsck` again: nothing that is referred to may be missing or damaged, and nothing
# may be left that no log refers to. The last line sums up. Exit code 1 when a count that must be
# zero is not, one that must not be is, or the gap that clients see is too long.
#
# --large N: producers with values of 1-9 MB and some longer than 32 MiB, which an S3 service gets
# in parts; half of the kills come while parts are sent. By default 2 with an S3 service, else none.
# --gap-p99-max S: bar for the p99 of that gap. With an S3 service it may be longer by twice the p99
# of PUTs that `soak` makes beside the load straight to the service (-- --puts-allowed 0: by none).
# --seconds 30 is for everyday. When a run fails its logs stay, with --keep also the broker's log
# and the objects. FIREBREAK_BIN and SOAK_BIN name built programs, CARGO another cargo.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../compose/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../compose/lib.sh"

seconds=300 kill_every=5 brokers=1 seed=$((RANDOM * 32768 + RANDOM)) keep=no threshold=10000
store=local large= gap_p99_max=1.5 more=()
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
        --store) store=${2:?--store wants a value} && shift 2 ;;
        --large) large=${2:?--large wants a value} && shift 2 ;;
        --gap-p99-max) gap_p99_max=${2:?--gap-p99-max wants a value} && shift 2 ;;
        --) shift && more=("$@") && break ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
        esac
    done
    [[ $seconds$kill_every$brokers$seed =~ ^[0-9]+$ ]] || die "numbers are wanted"
    [[ $store =~ ^(local|moto|versitygw)$ ]] || die "--store wants local, moto or versitygw"
    if [ -z "$large" ]; then large=$([ "$store" = local ] && echo 0 || echo 2); fi
    [[ $large =~ ^[0-9]+$ ]] || die "--large wants a number"
    [[ $gap_p99_max =~ ^[0-9]+(\.[0-9]+)?$ ]] || die "--gap-p99-max wants seconds"
    [ "$seconds" -ge 10 ] && [ "$kill_every" -ge 1 ] || die "at least 10 s, a kill every 1 s"
}

build() {
    local what=() target
    if [ -z "${SOAK_BIN:-}" ]; then what+=(-p firebreak-benches --bin soak); fi
    if [ -z "${FIREBREAK_BIN:-}" ]; then what+=(-p firebreak --bin firebreak); fi
    cd "$repo"
    [ ${#what[@]} = 0 ] || "${CARGO:-cargo}" build --quiet --release "${what[@]}" >&2 ||
        die "the build failed"
    target=$(cargo metadata --no-deps --format-version 1 |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    soak=${SOAK_BIN:-$target/release/soak}
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

[[offload]]
topics = ["soak-*"]
threshold_bytes = $threshold

[store]
TOML
    if [ "$store" = local ]; then
        printf 'kind = "local"\npath = "%s"\n' "$work/objects"
    else
        head -c 32 /dev/urandom | base64 -w0 >"$work/reference.key"
        chmod 600 "$work/reference.key"
        printf 'kind = "s3"\nbucket = "%s"\nkey_file = "%s"\n' "$S3_BUCKET" "$work/reference.key"
    fi >>"$work/firebreak.toml"
}

# An S3 service, and where the environment says that it is.
start_store() {
    [ "$store" != local ] || return 0
    "$compose/s3.sh" start --kind "$store" --dir "$work/s3" >/dev/null || die "no S3 service"
    set -a
    # shellcheck source=/dev/null
    . "$work/s3/env"
    set +a
}

# tend DAYS COMMAND...: upkeep so many days from now, two more than the one before. versitygw
# refuses signatures of another day: what it keeps is made older in the place of a clock ahead.
tend() {
    local days=$1 ahead=()
    shift
    if [ "$store" = versitygw ]; then
        "$compose/s3.sh" age --hours 48 --dir "$work/s3"
    else
        ahead=(env DONT_FAKE_MONOTONIC=1 faketime -f "+${days}d")
    fi
    "${ahead[@]}" "$firebreak" "$@" --json --config "$work/firebreak.toml"
}

# unfinished FILE: what was broken off while it was stored, one a line that ends with its bytes. No
# file where that cannot be told.
unfinished() {
    if [ "$store" = local ]; then
        find "$work/objects/pending" -type f -printf '%f %s\n' >"$1"
    else
        "$compose/s3.sh" uploads --dir "$work/s3" >"$1"
    fi || rm -f "$1"
}

# The store after the load: fsck, two passes of gc, fsck, and what was broken off before and after.
look_after() {
    local days
    stop_pid "$work/firebreak.pid" "$work/firebreak.toml"
    unfinished "$work/uploads-before"
    "$firebreak" fsck --deep --json --config "$work/firebreak.toml" >"$work/fsck.json" ||
        say "fsck found something"
    for days in 2 4; do
        tend "$days" gc >"$work/gc-$days.json" || say "gc failed"
    done
    unfinished "$work/uploads-after"
    tend 6 fsck --deep >"$work/after.json" || say "fsck found something behind gc"
    python3 "$repo/benches/harness/soak.py" "$work" "$out" "$store"
}

finish() {
    local code=$?
    stop_pid "$work/soak.pid" "$work/firebreak.toml"
    stop_pid "$work/firebreak.pid" "$work/firebreak.toml"
    if [ "$store" != local ]; then "$compose/s3.sh" stop --dir "$work/s3"; fi
    if [ -d "$work/kafka" ]; then "$compose/kafka.sh" stop --dir "$work/kafka"; fi
    if [ $code = 0 ]; then
        rm -rf "$work"
    else
        if [ $keep = no ]; then rm -rf "$work/objects" "$work/s3/objects" "$work"/kafka/node-*/data; fi
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
need faketime faketime
command -v "${CARGO:-cargo}" >/dev/null ||
    die "cargo is missing: install Rust from https://rustup.rs"
build
work=$(mktemp -d "${TMPDIR:-/tmp}/firebreak-soak.XXXXXX")
trap finish EXIT
trap 'exit 130' INT TERM
# A copy with large values is written in requests of up to 76 MB.
if [ "$large" -gt 0 ]; then export KAFKA_HEAP_MB=${KAFKA_HEAP_MB:-1024}; fi
direct=$("$compose/kafka.sh" start --brokers "$brokers" --dir "$work/kafka")
start_store
write_config
machine
if [ "$store" != local ]; then more=(--s3 "${more[@]}"); fi
# In the background, so that a signal to this script is not put off until the load has ended.
"$soak" --firebreak "$firebreak" --config "$work/firebreak.toml" --proxy "$proxy" \
    --brokers "$direct" --replicas "$brokers" --threshold "$threshold" --dir "$work" \
    --out "$out" --seconds "$seconds" --kill-every "$kill_every" --seed "$seed" \
    --large "$large" --gap-p99-max "$gap_p99_max" "${more[@]}" &
echo $! >"$work/soak.pid"
passed=0
wait $! || passed=$?
if [ "$passed" -gt 1 ]; then say "soak itself ended with code $passed"; fi
rm -f "$work/soak.pid"
looked=0
look_after || looked=$?
cp "$work/journal.log" "${out%.json}.journal.log"
say "figures: $out, beside it the journal"
exit $((passed > 0 || looked > 0))
