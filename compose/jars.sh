#!/usr/bin/env bash
# compose/jars.sh [VERSION]: fetches Kafka's jars (default 4.3.1) and prints the folder they are in.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
kafka_jars "${1:-}"
