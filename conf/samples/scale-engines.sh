#!/bin/sh
# A small autoscaler: follows llm_desired_engines, the number of engines that would carry what runs and waits for a model.
#
#   scale-engines.sh METRICS-URL MODEL MOST COMMAND [ARGUMENT …]
#   scale-engines.sh http://127.0.0.1:8080/metrics llama-3.1-8b 8 kubectl scale deployment/llama --replicas
#
# Runs COMMAND with the number (1 to MOST) as its last argument, at its start and whenever the number changes: up at once, down only
# when fewer have been enough for PATIENCE seconds (300). Looks every INTERVAL seconds (10). A gateway that does not answer changes
# nothing. The engine that COMMAND stops should drain on SIGTERM, as llm-engine and vLLM do.
set -eu
url=${1:?URL of llm_metrics} model=${2:?model} most=${3:?largest number of engines}
shift 3
[ $# -gt 0 ] || { echo "which command sets the number of engines?" >&2; exit 2; }
interval=${INTERVAL:-10} patience=${PATIENCE:-300}

now=0 enough_since=
while :; do
    wanted=$(curl -fsS --max-time 5 "$url" | awk -v series="llm_desired_engines{model=\"$model\"}" '
        index($0, series " ") == 1 { print int($NF) }') || wanted=
    if [ -n "$wanted" ]; then
        [ "$wanted" -ge 1 ] || wanted=1
        [ "$wanted" -le "$most" ] || wanted=$most
        time=$(date +%s)
        [ "$wanted" -lt "$now" ] || enough_since=
        : "${enough_since:=$time}"
        if [ "$wanted" -gt "$now" ] || { [ "$wanted" -lt "$now" ] && [ $((time - enough_since)) -ge "$patience" ]; }; then
            "$@" "$wanted" && now=$wanted enough_since=
        fi
    fi
    sleep "$interval"
done
