# shellcheck shell=bash
# What the scripts in this folder share: words to the user, missing tools, Kafka's jars, processes.
#
# Sourced, never run. A process is started with `spawn`, which records its pid, and ended with
# `stop_pid`, which ends that pid and nothing else.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
compose=$repo/compose
cache=${FIREBREAK_CACHE:-$repo/.cache}
kafka_version_default=4.3.1

say() { printf '%s\n' "$*" >&2; }
die() {
    say "error: $*"
    exit 1
}

# need COMMAND DEBIAN_PACKAGE: installs the package when the command is missing.
need() {
    command -v "$1" >/dev/null && return
    install_package "$1" "$2"
    command -v "$1" >/dev/null || die "installed $2, still no '$1'"
}

# need_venv: Python's virtual environments, which Debian packs apart.
need_venv() {
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_package "Python's venv" python3-venv
}

# install_package WHAT DEBIAN_PACKAGE: as root, or through sudo.
install_package() {
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    command -v apt-get >/dev/null ||
        die "'$1' is missing and this is no Debian or Ubuntu: please install it yourself"
    [ ${#as_root[@]} = 0 ] || command -v sudo >/dev/null ||
        die "'$1' is missing: as root, run 'apt-get install $2'"
    say "  installing $2 (for $1)"
    local log apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq
        -o DPkg::Lock::Timeout=120)
    log=$(mktemp)
    if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "$2"; } \
        >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        rm -f "$log"
        die "could not install $2"
    fi
    rm -f "$log"
}

# kafka_jars [VERSION]: prints the folder with Kafka's jars, fetched through Maven the first time.
# Of versions with four numbers, those before 1.0, only the clients.
kafka_jars() {
    local version=${1:-$kafka_version_default}
    [[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(\.[0-9]+)?$ ]] ||
        die "'$version' is no Kafka version like 4.3.1"
    local dir=$cache/kafka-$version
    if [ ! -d "$dir" ]; then
        command -v java >/dev/null || die "Java is missing: install a JRE, 17 or newer \
(Debian: default-jre-headless)"
        command -v mvn >/dev/null || die "Maven is missing, which fetches Kafka's jars \
(Debian: maven)"
        mkdir -p "$cache"
        # Two runs may want the same jars: the second waits, then finds them.
        (
            flock 9
            [ -d "$dir" ] || fetch_jars "$version" "$dir"
        ) 9>"$cache/fetch.lock" || exit 1
    fi
    printf '%s\n' "$dir"
}

# fetch_jars VERSION DIR: the folder appears whole or not at all. Runs in a subshell of its own.
fetch_jars() {
    local version=$1 dir=$2 artifact artifacts
    artifacts=(kafka_2.13 kafka-tools connect-runtime connect-mirror)
    [[ $version != *.*.*.* ]] || artifacts=(kafka-clients)
    work=$(mktemp -d "$cache/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    say "  fetching Kafka $version through Maven"
    {
        echo '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        echo '<groupId>firebreak</groupId><artifactId>kafka-jars</artifactId><version>1</version>'
        echo '<dependencies>'
        for artifact in "${artifacts[@]}"; do
            pom_dependency org.apache.kafka "$artifact" "$version"
        done
        for artifact in log4j-slf4j-impl log4j-core; do
            pom_dependency org.apache.logging.log4j "$artifact" 2.25.1
        done
        echo '</dependencies></project>'
    } >"$work/pom.xml"
    if ! mvn -B -q -f "$work/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$work/jars" >"$work/mvn.out" 2>&1; then
        grep -m 3 ERROR "$work/mvn.out" >&2
        die "Maven could not fetch Kafka $version"
    fi
    mv "$work/jars" "$dir"
    say "  Kafka $version: $(find "$dir" -name '*.jar' | wc -l) jars in $dir"
}

# slf4j-reload4j (3.9) would be a second log binding beside log4j-slf4j-impl.
pom_dependency() {
    printf '<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version>' "$@"
    echo '<exclusions><exclusion><groupId>org.slf4j</groupId>'
    echo '<artifactId>slf4j-reload4j</artifactId></exclusion></exclusions></dependency>'
}

# kafka_java JARS CLASS ARGS...: a short-lived Java tool of Kafka.
kafka_java() {
    local jars=$1
    shift
    java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx256m \
        "-Dlog4j2.configurationFile=$compose/log4j2.properties" -cp "$jars/*" "$@"
}

# spawn PIDFILE LOG COMMAND...: starts a process of its own session and records its pid.
spawn() {
    local pidfile=$1 log=$2
    shift 2
    setsid "$@" >>"$log" 2>&1 </dev/null &
    echo $! >"$pidfile"
}

# running PIDFILE WORD: is the recorded process alive, and is it still ours? (its command line
# holds WORD: after a reboot the number may be somebody else's)
running() {
    local pid
    [ -f "$1" ] && pid=$(<"$1") && grep -aqF -- "$2" "/proc/$pid/cmdline" 2>/dev/null
}

# stop_pid PIDFILE WORD [SECONDS]: TERM, then KILL when it has not ended in time.
stop_pid() {
    local pidfile=$1 word=$2 tenths=$((${3:-20} * 10)) pid
    if running "$pidfile" "$word"; then
        pid=$(<"$pidfile")
        kill -TERM "$pid" 2>/dev/null || true
        while [ "$tenths" -gt 0 ] && running "$pidfile" "$word"; do
            sleep 0.1
            tenths=$((tenths - 1))
        done
        if running "$pidfile" "$word"; then
            say "  $pid did not end in time: killed"
            kill -KILL "$pid" 2>/dev/null || true
        fi
    fi
    rm -f "$pidfile"
}
