#!/usr/bin/env bash
# Load with kcat alone: N producers and M consumers, directly and through the proxy, in turn.
#
#   benches/kcat.sh [--producers 4] [--consumers 4] [--records 50000] [--size 300] [--rounds 3]
#                   [--direct HOST:PORT --proxied HOST:PORT]
#
# Every producer writes --records lines, every consumer reads all of them from the beginning. The
# counts must be greater than zero and equal, and what each consumer read must be what was written
# (SHA-256 of the sorted lines), else the exit code is 1. Without addresses a broker and Firebreak
# are started for the run. kcat of Debian is an old client (librdkafka 2.0.2: Produce 7, Fetch 11).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../compose/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../compose/lib.sh"
export LC_ALL=C

producers=4 consumers=4 records=50000 size=300 rounds=3 direct='' proxied='' limit_seconds=300

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
        -h | --help) usage && exit 0 ;;
        --*) [ $# -gt 1 ] || die "$1 wants a value" ;;
        esac
        case $1 in
        --producers) producers=$2 ;;
        --consumers) consumers=$2 ;;
        --records) records=$2 ;;
        --size) size=$2 ;;
        --rounds) rounds=$2 ;;
        --direct) direct=$2 ;;
        --proxied) proxied=$2 ;;
        *) usage >&2 && exit 2 ;;
        esac
        shift 2
    done
    if [ -n "$direct$proxied" ] && { [ -z "$direct" ] || [ -z "$proxied" ]; }; then
        die "--direct and --proxied go together"
    fi
}

start_kafka() {
    printf 'num.partitions=4\nauto.create.topics.enable=true\n' >"$work/extra.properties"
    direct=$(KAFKA_EXTRA=$work/extra.properties "$compose/kafka.sh" start --dir "$work/kafka")
}

start_firebreak() {
    local target ports admin
    (cd "$repo" && "${CARGO:-cargo}" build --quiet --release -p firebreak) >&2 ||
        die "the build failed"
    target=$(cd "$repo" && cargo metadata --no-deps --format-version 1 |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    read -ra ports <<<"$(python3 "$compose/net.py" free-ports 10)"
    proxied=127.0.0.1:${ports[0]} admin=127.0.0.1:${ports[9]}
    spawn "$work/firebreak.pid" "$work/firebreak.log" "$target/release/firebreak" \
        --upstream "$direct" --listen "$proxied" --ports "${ports[1]}-${ports[8]}" \
        --admin "$admin"
    python3 "$compose/net.py" wait-http "http://$admin/readyz" 30 "$(<"$work/firebreak.pid")" ||
        die "Firebreak did not become ready: $(tail -n 3 "$work/firebreak.log")"
}

finish() {
    local code=$?
    stop_pid "$work/firebreak.pid" "$proxied"
    if [ -d "$work/kafka" ]; then "$compose/kafka.sh" stop --dir "$work/kafka"; fi
    if [ $code = 0 ]; then rm -rf "$work"; else say "what was written and read: $work"; fi
    exit $code
}

# Lines of $size bytes, each unique: producer, number, filling.
write_lines() {
    local number
    for ((number = 0; number < producers; number++)); do
        awk -v who="$number" -v count="$records" -v size="$size" 'BEGIN {
            fill = sprintf("%" size "s", ""); gsub(/ /, "x", fill)
            for (i = 0; i < count; i++) {
                line = "producer-" who " record-" i " "
                print line substr(fill, 1, size - length(line))
            }
        }' >"$work/lines-$number"
    done
    written=$((producers * records))
    digest=$(cat "$work"/lines-* | sort | sha256sum)
}

# await PID...: all must succeed.
await() {
    local pid
    for pid in "$@"; do wait "$pid" || die "a kcat failed: $(cat "$work"/kcat-*.err)"; done
}

now_ms() { echo $(($(date +%s%N) / 1000000)); }

# one_run PATH ADDRESS ROUND: a topic of its own, producers, consumers, counts; prints a table row.
one_run() {
    local path=$1 address=$2 topic=kcat-$1-$3-$$ pids=() number begun produced consumed
    kcat -q -L -b "$address" -t "$topic" >/dev/null
    sleep 1
    begun=$(now_ms)
    for ((number = 0; number < producers; number++)); do
        timeout "$limit_seconds" kcat -q -P -b "$address" -t "$topic" \
            -l "$work/lines-$number" 2>"$work/kcat-p$number.err" &
        pids+=($!)
    done
    await "${pids[@]}"
    produced=$(($(now_ms) - begun))
    pids=() begun=$(now_ms)
    for ((number = 0; number < consumers; number++)); do
        timeout "$limit_seconds" kcat -q -C -b "$address" -t "$topic" -o beginning -e \
            >"$work/read-$number" 2>"$work/kcat-c$number.err" &
        pids+=($!)
    done
    await "${pids[@]}"
    consumed=$(($(now_ms) - begun))
    check "$path" "$3"
    printf '%-8s %5s %10s %10s %12s %10s %12s %10s\n' "$path" "$3" "$written" \
        $((consumers * written)) $((written * size / produced / 1000)) "$produced" \
        $((consumers * written * size / consumed / 1000)) "$consumed"
}

check() {
    local number count
    for ((number = 0; number < consumers; number++)); do
        count=$(wc -l <"$work/read-$number")
        if [ "$count" = 0 ] || [ "$count" != "$written" ]; then
            die "$1 round $2: consumer $number read $count of $written"
        fi
        [ "$(sort "$work/read-$number" | sha256sum)" = "$digest" ] ||
            die "$1 round $2: consumer $number did not read what was written"
    done
}

parse "$@"
need kcat kcat
need python3 python3
work=$(mktemp -d "${TMPDIR:-/tmp}/firebreak-kcat.XXXXXX")
trap finish EXIT
trap 'exit 130' INT TERM
if [ -z "$direct" ]; then
    start_kafka
    start_firebreak
fi
write_lines
echo "$producers producers x $records records of $size bytes, $consumers consumers of all;" \
    "$(nproc) cores, kcat" \
    "$(kcat -V | sed -n 's/^Version \([^ ]*\).*\(librdkafka [^ ]*\).*/\1 \2/p')," \
    "$(date -u +%FT%TZ)"
printf '%-8s %5s %10s %10s %12s %10s %12s %10s\n' path round written read 'write MB/s' ms \
    'read MB/s' ms
for ((round = 1; round <= rounds; round++)); do
    if ((round % 2)); then
        one_run direct "$direct" "$round" && one_run proxied "$proxied" "$round"
    else
        one_run proxied "$proxied" "$round" && one_run direct "$direct" "$round"
    fi
done
echo "counts equal: yes, contents equal: yes"
