#!/bin/sh
# Takes an engine out of service without losing a request: no new ones go to it, and this returns when its last one has ended.
# Start its successor first.
#
#   replace-engine.sh http://127.0.0.1:8080/llm ENGINE-ID [SECONDS]
#
# The URL is the location of `llm_status admin`. Exit status: 0 it is empty, stop it now; 1 it was not within SECONDS (600); 2 the
# gateway refused. Afterwards: stop the engine, or undrain it.
set -eu
status=${1:?URL of llm_status} engine=${2:?engine id} seconds=${3:-600}

url=$(python3 -c 'import sys, urllib.parse; print(f"{sys.argv[1]}/engines/{urllib.parse.quote(sys.argv[2], safe=str())}/drain")' "$status" "$engine")
curl -fsS -o /dev/null -X POST -H 'x-llm-admin: replace-engine' "$url" || exit 2

deadline=$(($(date +%s) + seconds))
while :; do
    held=$(curl -fsS "$status/status.json" | python3 -c '
import json, sys
print(next((engine["held"] for engine in json.load(sys.stdin)["engines"] if engine["id"] == sys.argv[1]), 0))' "$engine")
    [ "$held" -ne 0 ] || break
    if [ "$(date +%s)" -ge "$deadline" ]; then
        echo "$engine still holds $held after $seconds s" >&2
        exit 1
    fi
    sleep 1
done
echo "$engine is empty"
