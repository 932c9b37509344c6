#!/usr/bin/env bash
# franz-go's own test suite against a real Kafka: direct, then through the proxy.
#
#   compose/suite.sh [--records 50000] [--run REGEX] [plain|offload|virtual ...]
#
# All three configurations unless some are named: nothing but the proxy; values beyond 112 bytes in
# a store; beside a virtual topic. Each has a Kafka of its own. Prints tests whose results differ
# from the direct ones; the exit code is 1 when one differs that no page of docs/ says.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }

module=github.com/twmb/franz-go@v1.22.3
records=50000 tests=. columns=()
while [ $# -gt 0 ]; do
    case $1 in
    --records) records=${2:?--records wants a value} && shift 2 ;;
    --run) tests=${2:?--run wants a value} && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    plain | offload | virtual) columns+=("$1") && shift ;;
    *) usage >&2 && exit 2 ;;
    esac
done
[[ $records =~ ^[1-9][0-9]*$ ]] || die "--records wants a number"
[ ${#columns[@]} -gt 0 ] || columns=(plain offload virtual)
command -v cargo >/dev/null || die "Rust is missing: see https://rustup.rs"
need cc gcc
need make make
need java default-jre-headless
need mvn maven
need go golang-go
need python3 python3

run=$(mktemp -d "${TMPDIR:-/tmp}/firebreak-suite.XXXXXX")
at_end() {
    stop_pid "$run/firebreak.pid" "$run/firebreak.toml"
    "$compose/kafka.sh" stop --dir "$run/kafka" 2>/dev/null || true
    chmod -R u+w "$run" && rm -rf "$run"
}
trap at_end EXIT

build() {
    cd "$repo"
    "${CARGO:-cargo}" build --quiet --release -p firebreak >&2 || die "the build failed"
    firebreak=$(cargo metadata --no-deps --format-version 1 | python3 -c \
        'import json, sys; print(json.load(sys.stdin)["target_directory"])')/release/firebreak
    local source
    source=$(cd "$run" && go mod download -json "$module" | python3 -c \
        'import json, sys; print(json.load(sys.stdin)["Dir"])') || die "$module cannot be fetched"
    cp -r "$source" "$run/franz-go" && chmod -R u+w "$run/franz-go"
    (cd "$run/franz-go" && go test -c -o "$run/suite" ./pkg/kgo) || die "the suite does not build"
}

start_kafka() {
    cat >"$run/kafka.properties" <<'PROPERTIES'
num.partitions=4
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
group.share.delivery.count.limit=10
PROPERTIES
    broker=$(KAFKA_EXTRA=$run/kafka.properties "$compose/kafka.sh" start --dir "$run/kafka")
}

# start_firebreak COLUMN
start_firebreak() {
    local ports
    read -ra ports <<<"$(python3 "$compose/net.py" free-ports 10)"
    proxy=127.0.0.1:${ports[0]}
    {
        printf '[listen]\nbootstrap = "%s"\nadvertise = "127.0.0.1"\n' "$proxy"
        printf 'ports = "%s-%s"\n[admin]\naddress = "127.0.0.1:%s"\n' \
            "${ports[1]}" "${ports[8]}" "${ports[9]}"
        printf '[[cluster]]\nname = "main"\nbootstrap = ["%s"]\n' "$broker"
        case $1 in
        offload)
            printf '[store]\nkind = "local"\npath = "%s"\n' "$run/objects"
            printf '[[offload]]\ntopics = ["*"]\nthreshold_bytes = 112\n'
            ;;
        virtual)
            printf '[[virtual_topic]]\nname = "beside"\npartitions = 3\n'
            printf 'region = { header = "region" }\n[[region]]\nname = "norcal"\n'
            ;;
        esac
    } >"$run/firebreak.toml"
    spawn "$run/firebreak.pid" "$run/firebreak.log" "$firebreak" --config "$run/firebreak.toml"
    python3 "$compose/net.py" wait-http "http://127.0.0.1:${ports[9]}/readyz" 60 \
        "$(<"$run/firebreak.pid")" || die "Firebreak did not become ready"
}

# suite COLUMN ADDRESS: its results in a file of JSON lines.
suite() {
    say "== $1: $2"
    (cd "$run/franz-go/pkg/kgo" && KGO_SEEDS=$2 KGO_TEST_RF=1 KGO_TEST_RECORDS=$records \
        KGO_LOG_LEVEL=none go tool test2json -t "$run/suite" -test.v=test2json \
        -test.timeout 30m -test.run "$tests") >"$run/$1.json" 2>"$run/$1.errors" || true
}

build
start_kafka
suite direct "$broker"
for column in "${columns[@]}"; do
    "$compose/kafka.sh" stop --dir "$run/kafka"
    start_kafka
    start_firebreak "$column"
    suite "$column" "$proxy"
    stop_pid "$run/firebreak.pid" "$run/firebreak.toml"
done
python3 "$compose/suite.py" "$run" direct "${columns[@]}"
