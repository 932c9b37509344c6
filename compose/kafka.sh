#!/usr/bin/env bash
# A real Kafka on this machine, without Docker: KRaft, small heaps, free ports, stopped by pid.
#
# Flow: jars from Maven -> server.properties and StorageTool format per node -> java kafka.Kafka ->
# wait until every broker answers. Brokers listen on 127.0.0.2, .3, .4 ..., so that an address of a
# broker is never taken for one of a proxy on 127.0.0.1.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'USAGE'
usage: compose/kafka.sh start [--version 4.3.1] [--brokers 1] [--dir DIR]
       compose/kafka.sh stop | status [--dir DIR]
       compose/kafka.sh run [--dir DIR] CLASS ARGS...    one of Kafka's Java tools, same version

start  prints the bootstrap address. One broker is its own controller; with more there is one
       controller beside them. Any data of an earlier start in DIR is removed.
stop   ends the processes by pid; DIR keeps configuration, data and log files.
DIR    (default: .cache/run/kafka) holds `state`, and per node server.properties, data, log, pid.
KAFKA_HEAP_MB sets a broker's heap, KAFKA_EXTRA names a file of lines added to every
server.properties.
example: compose/kafka.sh run org.apache.kafka.tools.TopicCommand --list \
             --bootstrap-server "$(compose/kafka.sh start)"
USAGE
}

parse() {
    version=$kafka_version_default brokers=1 dir=$cache/run/kafka
    while [ $# -gt 0 ]; do
        case $1 in
        --version) version=${2:?--version wants a value} && shift 2 ;;
        --brokers) brokers=${2:?--brokers wants a value} && shift 2 ;;
        --dir) dir=${2:?--dir wants a value} && shift 2 ;;
        -h | --help) usage && exit 0 ;;
        -*) usage >&2 && exit 2 ;;
        *) break ;;
        esac
    done
    rest=("$@")
    [ "$command" = run ] || [ $# = 0 ] || die "$command takes no '$1'"
    [[ $brokers =~ ^[1-9]$ ]] || die "--brokers wants 1 to 9"
    case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
}

# Sets `nodes` to the nodes' folders, a controller of its own last: brokers stop before it, since
# they hand their leadership over through it.
find_nodes() {
    mapfile -t nodes < <(find "$dir" -mindepth 1 -maxdepth 1 -name 'node-*' 2>/dev/null | sort -V)
}

# The word by which `running` knows a node's process.
node_mark() { printf '%s/server.properties' "$1"; }

# write_node ID ROLES ADDRESS: uses $controller (H:P) and $controller_id.
write_node() {
    local id=$1 roles=$2 host=${3%:*} port=${3##*:} node=$dir/node-$1 listeners=() copies
    mkdir -p "$node"
    if [[ $roles == *broker* ]]; then listeners+=("PLAINTEXT://$host:$port"); fi
    if [[ $roles == *controller* ]]; then listeners+=("CONTROLLER://$controller"); fi
    copies=$((brokers < 3 ? brokers : 3))
    {
        cat <<PROPERTIES
process.roles=$roles
node.id=$id
controller.quorum.voters=$controller_id@$controller
controller.listener.names=CONTROLLER
listeners=$(IFS=, && echo "${listeners[*]}")
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$node/data
default.replication.factor=$copies
offsets.topic.replication.factor=$copies
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$copies
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
PROPERTIES
        if [[ $roles == *broker* ]]; then
            echo "advertised.listeners=PLAINTEXT://$host:$port"
        fi
        version_properties "$copies"
        if [ -n "${KAFKA_EXTRA:-}" ]; then cat "$KAFKA_EXTRA"; fi
    } >"$node/server.properties"
}

# What a version needs beside the common keys. 4.2 and newer have share groups and KIP-848 groups on
# by themselves; 4.1 asks for the share protocol and its feature, 3.9 for the consumer protocol.
version_properties() {
    case $version in
    3.*) echo "group.coordinator.rebalance.protocols=classic,consumer" ;;
    4.0.* | 4.1.*) echo "group.coordinator.rebalance.protocols=classic,consumer,share" ;;
    esac
    case $version in
    4.*)
        echo "share.coordinator.state.topic.replication.factor=$1"
        echo "share.coordinator.state.topic.min.isr=1"
        echo "share.coordinator.state.topic.num.partitions=4"
        ;;
    esac
}

format_node() {
    local features=()
    case $version in 4.1.*) features=(--feature share.version=1) ;; esac
    kafka_java "$jars" kafka.tools.StorageTool format --cluster-id "$cluster_id" \
        --config "$(node_mark "$1")" "${features[@]}" >"$1/format.log" 2>&1 ||
        { cat "$1/format.log" >&2 && die "could not format $1"; }
}

start_node() {
    local node=$1 heap=${KAFKA_HEAP_MB:-400}
    if grep -q '^process.roles=controller$' "$node/server.properties"; then heap=200; fi
    if [ "$brokers" = 1 ]; then heap=${KAFKA_HEAP_MB:-512}; fi
    spawn "$node/pid" "$node/log" java "-Xms128m" "-Xmx${heap}m" -XX:+UseG1GC \
        -XX:MaxGCPauseMillis=20 -Djava.awt.headless=true -Dfirebreak.log.level=info \
        "-Dlog4j2.configurationFile=$compose/log4j2.properties" \
        -cp "$jars/*" kafka.Kafka "$(node_mark "$node")"
}

start() {
    local node pids=()
    find_nodes
    for node in "${nodes[@]}"; do
        ! running "$node/pid" "$(node_mark "$node")" || die "already running in $dir: stop it first"
        rm -rf "$node"
    done
    jars=$(kafka_jars "$version")
    mkdir -p "$dir"
    lay_out
    find_nodes
    for node in "${nodes[@]}"; do format_node "$node"; done
    for node in "${nodes[@]}"; do start_node "$node" && pids+=("$(<"$node/pid")"); done
    if ! python3 "$compose/net.py" wait-kafka "$bootstrap" "$brokers" 90 "${pids[@]}"; then
        for node in "${nodes[@]}"; do
            grep -m 15 -E 'ERROR|FATAL|Exception' "$node/log" >&2 || tail -n 15 "$node/log" >&2
        done
        stop
        die "Kafka $version did not come up; its log files are in $dir"
    fi
    printf '%s\n' "$bootstrap"
}

# lay_out: addresses, every node's server.properties, and the state file.
lay_out() {
    local ports id
    read -ra ports <<<"$(python3 "$compose/net.py" free-ports $((brokers + 1)) 127.0.0.2)"
    cluster_id=$(python3 "$compose/net.py" cluster-id)
    controller=127.0.0.2:${ports[0]}
    bootstrap=
    controller_id=100
    if [ "$brokers" = 1 ]; then
        controller_id=1
    else
        write_node 100 controller "$controller"
    fi
    for ((id = 1; id <= brokers; id++)); do
        local address=127.0.0.$((id + 1)):${ports[id]} roles=broker
        if [ "$brokers" = 1 ]; then roles=broker,controller; fi
        write_node "$id" "$roles" "$address"
        bootstrap+=${bootstrap:+,}$address
    done
    printf 'version=%s\nbrokers=%s\nbootstrap=%s\ncontroller=%s\ncluster_id=%s\njars=%s\n' \
        "$version" "$brokers" "$bootstrap" "$controller" "$cluster_id" "$jars" >"$dir/state"
}

stop() {
    local node
    [ -f "$dir/state" ] || { say "nothing was started in $dir" && return 1; }
    find_nodes
    for node in "${nodes[@]}"; do stop_pid "$node/pid" "$(node_mark "$node")"; done
}

status() {
    local node up=0
    [ -f "$dir/state" ] || { say "nothing was started in $dir" && return 1; }
    cat "$dir/state"
    find_nodes
    for node in "${nodes[@]}"; do
        if running "$node/pid" "$(node_mark "$node")"; then
            up=$((up + 1))
            echo "${node##*/}=running pid $(<"$node/pid")"
        else
            echo "${node##*/}=stopped"
        fi
    done
    [ "$up" = ${#nodes[@]} ]
}

run() {
    local jars
    [ ${#rest[@]} -gt 0 ] || { usage >&2 && exit 2; }
    if [ -f "$dir/state" ]; then version=$(sed -n 's/^version=//p' "$dir/state"); fi
    jars=$(kafka_jars "$version")
    kafka_java "$jars" "${rest[@]}"
}

command=${1:-}
[ $# = 0 ] || shift
parse "$@"
case $command in
start | stop | status | run) "$command" ;;
-h | --help | help) usage ;;
*) usage >&2 && exit 2 ;;
esac
