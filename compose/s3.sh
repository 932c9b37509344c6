#!/usr/bin/env bash
# An S3 service on this machine, without Docker: moto for everyday, versitygw where signatures and
# checksums must count.
#
# Flow: install into the cache the first time (PyPI, Go) -> start on a free port -> make the bucket.
# A start prints lines that a shell can read: endpoint, bucket, keys. Stopped by pid.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'USAGE'
usage: compose/s3.sh start [--kind moto|versitygw] [--dir DIR]
       compose/s3.sh stop | flip | uploads [--dir DIR]
       compose/s3.sh age [--hours N] [--dir DIR]

start    prints MINIO_ENDPOINT, MINIO_ACCESS_KEY, MINIO_SECRET_KEY and S3_BUCKET, to be sourced
stop     ends the process by pid; DIR keeps its log (and versitygw's objects)
flip     changes one byte of the largest object
uploads  prints uploads in parts that are neither complete nor aborted, one a line: key, id,
         parts, bytes
age      makes objects and uploads of versitygw N hours older (default: 48), and the times in what
         `firebreak gc` has marked: it refuses signatures by a clock that is ahead
DIR      default: .cache/run/s3
USAGE
}

moto_version=5.2.5
versitygw_version=v1.8.0
bucket=firebreak
access=firebreak-local
secret=not-a-secret-on-loopback

# A Python with moto and boto3 of its own.
python_of_s3() {
    local venv=$cache/s3-$moto_version
    if [ ! -x "$venv/bin/moto_server" ]; then
        need python3 python3
        python3 -c 'import ensurepip' 2>/dev/null || need pyvenv python3-venv
        say "  fetching moto $moto_version"
        rm -rf "$venv"
        mkdir -p "$cache"
        python3 -m venv "$venv" >&2
        "$venv/bin/pip" install -q "moto[server,s3]==$moto_version" >&2 || die "no moto"
    fi
    printf '%s\n' "$venv/bin"
}

versitygw() {
    local gateway=$cache/versitygw-$versitygw_version/versitygw
    if [ ! -x "$gateway" ]; then
        command -v go >/dev/null || die "Go is missing, which builds versitygw (Debian: golang)"
        say "  building versitygw $versitygw_version: takes minutes the first time"
        GOBIN=$(dirname "$gateway") go install \
            "github.com/versity/versitygw/cmd/versitygw@$versitygw_version" >&2 ||
            die "the build of versitygw failed"
    fi
    printf '%s\n' "$gateway"
}

start() {
    local python port gateway
    python=$(python_of_s3)
    mkdir -p "$dir"
    # moto keeps a file open for every object of more than 5 MB.
    ulimit -Sn "$(ulimit -Hn)" || true
    port=$(python3 "$compose/net.py" free-ports 1)
    if [ "$kind" = moto ]; then
        spawn "$dir/pid" "$dir/log" "$python/moto_server" -H 127.0.0.1 -p "$port"
    else
        gateway=$(versitygw)
        mkdir -p "$dir/objects" "$dir/meta"
        ROOT_ACCESS_KEY=$access ROOT_SECRET_KEY=$secret \
            spawn "$dir/pid" "$dir/log" "$gateway" --port "127.0.0.1:$port" \
            posix --sidecar "$dir/meta" "$dir/objects"
    fi
    AWS_ACCESS_KEY_ID=$access AWS_SECRET_ACCESS_KEY=$secret AWS_DEFAULT_REGION=us-east-1 \
        "$python/python" - "http://127.0.0.1:$port" "$bucket" >&2 <<'PYTHON' ||
import sys, time, boto3, botocore
endpoint, bucket = sys.argv[1:]
config = botocore.config.Config(retries={"max_attempts": 1}, connect_timeout=1)
client = boto3.client("s3", endpoint_url=endpoint, config=config)
for attempt in range(100):
    try:
        client.create_bucket(Bucket=bucket)
        break
    except botocore.exceptions.EndpointConnectionError:
        time.sleep(0.1)
else:
    sys.exit("no answer")
PYTHON
        die "$kind did not start, see $dir/log"
    tee "$dir/env" <<ENV
MINIO_ENDPOINT=127.0.0.1:$port
MINIO_ACCESS_KEY=$access
MINIO_SECRET_KEY=$secret
S3_BUCKET=$bucket
ENV
}

flip() {
    local python endpoint
    python=$(python_of_s3)
    endpoint=$(sed -n 's/^MINIO_ENDPOINT=//p' "$dir/env")
    AWS_ACCESS_KEY_ID=$access AWS_SECRET_ACCESS_KEY=$secret AWS_DEFAULT_REGION=us-east-1 \
        "$python/python" - "http://$endpoint" "$bucket" >&2 <<'PYTHON'
import sys, boto3
endpoint, bucket = sys.argv[1:]
client = boto3.client("s3", endpoint_url=endpoint)
pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
objects = [found for page in pages for found in page.get("Contents", [])]
if not objects:
    sys.exit("no object in the bucket: nothing was offloaded")
largest = max(objects, key=lambda found: found["Size"])["Key"]
body = bytearray(client.get_object(Bucket=bucket, Key=largest)["Body"].read())
body[len(body) // 2] ^= 1
client.put_object(Bucket=bucket, Key=largest, Body=bytes(body))
print(f"  flipped one bit of byte {len(body) // 2} of {largest}")
PYTHON
}

uploads() {
    local python endpoint
    python=$(python_of_s3)
    endpoint=$(sed -n 's/^MINIO_ENDPOINT=//p' "$dir/env")
    AWS_ACCESS_KEY_ID=$access AWS_SECRET_ACCESS_KEY=$secret AWS_DEFAULT_REGION=us-east-1 \
        "$python/python" - "http://$endpoint" "$bucket" <<'PYTHON'
import sys, boto3
endpoint, bucket = sys.argv[1:]
client = boto3.client("s3", endpoint_url=endpoint)
for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
    for upload in page.get("Uploads", []):
        one = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
        pages = client.get_paginator("list_parts").paginate(**one)
        sizes = [part["Size"] for parts in pages for part in parts.get("Parts", [])]
        print(upload["Key"], upload["UploadId"], len(sizes), sum(sizes))
PYTHON
}

age() {
    [ -d "$dir/objects/$bucket" ] || die "$dir has no objects of versitygw"
    python3 - "$dir/objects/$bucket" "$hours" <<'PYTHON'
import os, pathlib, sys
root, seconds = pathlib.Path(sys.argv[1]), int(sys.argv[2]) * 3600
marks = root / "upkeep" / "v1" / "marks"
for mark in marks.glob("*/*"):
    aged = []
    for line in mark.read_text().splitlines():
        at, key = line.split(" ", 1)
        aged.append(f"{int(at) - seconds * 1000} {key}\n")
    mark.write_text("".join(aged))
# Folders too: the time of an upload is that of the folder with its parts.
for folder, folders, files in os.walk(root):
    for name in folders + files:
        path = os.path.join(folder, name)
        at = os.stat(path).st_mtime - seconds
        os.utime(path, (at, at))
PYTHON
}

action=${1:-}
[ $# = 0 ] || shift
kind=moto dir=$cache/run/s3 hours=48
while [ $# -gt 0 ]; do
    case $1 in
    --kind) kind=${2:?--kind wants a value} && shift 2 ;;
    --dir) dir=${2:?--dir wants a value} && shift 2 ;;
    --hours) hours=${2:?--hours wants a value} && shift 2 ;;
    *) usage >&2 && exit 2 ;;
    esac
done
[[ $kind =~ ^(moto|versitygw)$ ]] || die "--kind wants moto or versitygw"
[[ $hours =~ ^[0-9]+$ ]] || die "--hours wants a number"
case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
case $action in
start) start ;;
flip) flip ;;
uploads) uploads ;;
age) age ;;
stop) stop_pid "$dir/pid" 127.0.0.1 ;;
-h | --help) usage ;;
*) usage >&2 && exit 2 ;;
esac
