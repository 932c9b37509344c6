#!/usr/bin/env bash
# Firebreak in front of a real Kafka, on real data, in one command.
#
# Flow: install what is missing -> build -> start Kafka and Firebreak on free ports -> send the
# sample with kcat through the proxy -> start the proxy anew, so that nothing can come from its
# memory -> read everything back through it -> read the same topics on the broker -> compare, print.
# Everything started is stopped by pid and its folder removed, also when a step fails.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'USAGE'
usage: compose/quickstart.sh [--keep] [--flip-byte] [--store local|s3] [--kafka VERSION]
       compose/quickstart.sh --stop DIR

--keep       leave Kafka and Firebreak running (and say how to stop them)
--flip-byte  after sending, change one byte of one stored object: the table must then say
             `identical no`, and the exit code be 1
--store      where large values go: a directory (default) or an S3 service (moto) started for it
--kafka      4.3.1 (default), 4.1.0 or 3.9.1
--stop DIR   stop what an earlier --keep left running
exit code: 0 when every record came back identical and the image topic takes 95 % less on the
broker, 1 when not.
USAGE
}

detections=wildfire-detections
images=satellite-images
sample=$compose/sample
send_seconds=120
export PYTHONDONTWRITEBYTECODE=1

step() { say "[$((SECONDS / 60))m$(printf %02d $((SECONDS % 60)))s] $*"; }

install_missing() {
    step "looking for what is needed"
    need python3 python3
    need kcat kcat
    need java default-jre-headless
    need mvn maven
    need cc build-essential
    command -v cargo >/dev/null || die "cargo is missing: install Rust from https://rustup.rs"
    kafka_jars "$kafka" >/dev/null
}

build() {
    step "building firebreak (release): some ten minutes the first time"
    (cd "$repo" && cargo build --release -p firebreak) >&2 || die "the build failed"
    local target
    target=$(cd "$repo" && cargo metadata --no-deps --format-version 1 |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    firebreak=$target/release/firebreak
}

start_kafka() {
    step "starting Kafka $kafka"
    broker=$("$compose/kafka.sh" start --version "$kafka" --dir "$run/kafka")
}

# One bootstrap port, eight for virtual brokers, one for the admin port.
lay_out_firebreak() {
    local ports
    read -ra ports <<<"$(python3 "$compose/net.py" free-ports 10)"
    proxy=127.0.0.1:${ports[0]}
    admin=127.0.0.1:${ports[9]}
    cat >"$run/firebreak.toml" <<TOML
[listen]
bootstrap = "$proxy"
advertise = "127.0.0.1"
ports = "${ports[1]}-${ports[8]}"

[admin]
address = "$admin"

[[cluster]]
name = "local"
bootstrap = ["$broker"]
node_id_base = 0

$(store_keys)

# The default threshold. Two of the sixteen images are smaller (73 KB and 13 KB) and stay in the log
# as they are: 86 KB of 11.6 MB, so that more than 95 % is still saved.
[[offload]]
topics = ["satellite-*"]
threshold_bytes = 100000
TOML
}

store_keys() {
    echo '[store]'
    if [ "$store" = local ]; then
        printf 'kind = "local"\npath = "%s"\n' "$run/objects"
    else
        printf 'kind = "s3"\nbucket = "%s"\nkey_file = "%s"\n' "$S3_BUCKET" "$run/reference.key"
    fi
}

# The service's address and keys go to Firebreak by its environment.
start_s3() {
    step "starting an S3 service"
    local found
    found=$("$compose/s3.sh" start --dir "$run/s3") || die "no S3 service"
    set -a
    eval "$found"
    set +a
    (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$run/reference.key")
}

start_firebreak() {
    spawn "$run/firebreak.pid" "$run/firebreak.log" \
        "$firebreak" --config "$run/firebreak.toml"
    if ! python3 "$compose/net.py" wait-http "http://$admin/readyz" 30 "$(<"$run/firebreak.pid")"
    then
        die "Firebreak did not become ready"
    fi
}

stop_firebreak() { stop_pid "$run/firebreak.pid" "$run/firebreak.toml"; }

create_topics() {
    local topic
    step "creating topics through the proxy at $proxy"
    for topic in "$detections" "$images"; do
        "$compose/kafka.sh" run --dir "$run/kafka" org.apache.kafka.tools.TopicCommand \
            --bootstrap-server "$proxy" --create --topic "$topic" --partitions 3 >&2 ||
            die "could not create $topic"
    done
}

send() {
    step "sending the sample with kcat through the proxy"
    mkdir -p "$run/sent"
    python3 "$compose/sample_json.py" "$sample"/detections/*.csv >"$run/detections.jsonl"
    python3 "$compose/records.py" sent-lines "$run/detections.jsonl" >"$run/sent/$detections.tsv"
    python3 "$compose/records.py" sent-files "$sample"/images/* >"$run/sent/$images.tsv"
    timeout --foreground "$send_seconds" kcat -P -b "$proxy" -t "$detections" \
        -l "$run/detections.jsonl" ||
        die "kcat could not send the detections"
    local file
    for file in "$sample"/images/*; do
        send_image "$proxy" "$file" || die "kcat could not send $file"
    done
}

# kcat sends a file named on its command line as one record; its own limit is 1 MB unless raised.
send_image() {
    timeout --foreground "$send_seconds" kcat -P -b "$1" -t "$images" -k "$(basename "$2")" \
        -X message.max.bytes=16000000 "$2"
}

# The broker keeps its default limit of 1 MB a record.
show_limit() {
    local file=$sample/images/RGBA.byte.tif refusal
    if refusal=$(send_image "$broker" "$file" 2>&1); then
        die "the broker took ${file##*/} directly: its limit is not the default"
    fi
    refusal=${refusal%%$'\n'*}
    say "  ${file##*/}, $(stat -c %s "$file") bytes, sent directly to the broker: ${refusal#% }"
    say "  sent through Firebreak: taken"
}

read_back() {
    step "reading everything back through the proxy, started anew"
    stop_firebreak
    if [ "$flip_byte" = 1 ] && [ "$store" = s3 ]; then "$compose/s3.sh" flip --dir "$run/s3"; fi
    if [ "$flip_byte" = 1 ] && [ "$store" = local ]; then
        python3 "$compose/records.py" flip "$run/objects"
    fi
    start_firebreak
    read_all "$proxy" "$run/back"
    step "reading the same topics directly from the broker at $broker"
    read_all "$broker" "$run/direct"
}

read_all() {
    local topic
    mkdir -p "$2"
    for topic in "$detections" "$images"; do
        python3 "$compose/records.py" read "$1" "$topic" >"$2/$topic.tsv"
    done
}

look_next() {
    if [ "$keep" = 0 ]; then
        printf '\nAll of this is stopped and removed now; --keep leaves it running and says where.\n'
        return
    fi
    local where=$run/objects
    if [ "$store" = s3 ]; then where="bucket $S3_BUCKET at http://$MINIO_ENDPOINT"; fi
    cat <<NEXT

Where to look next
  clients connect to     $proxy
  the proxy says         curl http://$admin/status
                         curl http://$admin/metrics
  read through the proxy kcat -C -b $proxy -t $detections -o beginning -e
  sizes on the broker    kcat -C -b $broker -t $images -o beginning -e -f '%k %S bytes\n'
  send a file            kcat -P -b $proxy -t $images -k NAME -X message.max.bytes=16000000 FILE
  one of Kafka's tools   $compose/kafka.sh run --dir $run/kafka org.apache.kafka.tools.TopicCommand --list --bootstrap-server $proxy
  configuration          $run/firebreak.toml
  stored objects         $where
  log files              $run/firebreak.log, $run/kafka/node-1/log
NEXT
    printf '\nStill running. To stop and remove it:\n  %q --stop %q\n' "${BASH_SOURCE[0]}" "$run"
}

# clean_up DIR: stops by pid what was started below DIR, then removes DIR.
clean_up() {
    run=$1
    stop_firebreak
    if [ -f "$run/kafka/state" ]; then "$compose/kafka.sh" stop --dir "$run/kafka"; fi
    if [ -d "$run/s3" ]; then "$compose/s3.sh" stop --dir "$run/s3"; fi
    rm -rf "$run"
}

# Called by the trap. What went wrong before there was a table is most likely in the proxy's log.
# shellcheck disable=SC2317
finish() {
    if [ "$compared" = 0 ] && [ -s "$run/firebreak.log" ]; then
        say "the end of Firebreak's log:"
        tail -n 10 "$run/firebreak.log" >&2
    fi
    clean_up "$run"
}

stop_kept() {
    [ -f "$1/firebreak.toml" ] || die "$1 is no folder of this script"
    clean_up "$(cd "$1" && pwd)"
}

parse() {
    keep=0 flip_byte=0 store=local kafka=$kafka_version_default
    while [ $# -gt 0 ]; do
        case $1 in
        --keep) keep=1 && shift ;;
        --flip-byte) flip_byte=1 && shift ;;
        --kafka | --stop | --store) [ $# -gt 1 ] || die "$1 wants a value" ;;&
        --store) store=$2 && shift 2 ;;
        --kafka) kafka=$2 && shift 2 ;;
        --stop) stop_kept "$2" && exit 0 ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
        esac
    done
    [[ $store =~ ^(local|s3)$ ]] || die "--store wants local or s3"
}

main() {
    # What the caller's environment says of a store is not meant for this run.
    unset MINIO_ENDPOINT MINIO_ACCESS_KEY MINIO_SECRET_KEY USE_AWS_S3
    local code=0
    compared=0
    parse "$@"
    run=$(mktemp -d "${TMPDIR:-/tmp}/firebreak-quickstart.XXXXXX")
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    install_missing
    build
    start_kafka
    if [ "$store" = s3 ]; then start_s3; fi
    lay_out_firebreak
    start_firebreak
    create_topics
    send
    show_limit
    read_back
    step "done"
    echo
    python3 "$compose/report.py" "$run" "$detections" "$images" || code=1
    compared=1
    look_next
    if [ "$keep" = 1 ]; then trap - EXIT; fi
    exit $code
}

main "$@"
