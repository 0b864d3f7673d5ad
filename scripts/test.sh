#!/usr/bin/env bash
# Installs what is missing, builds, runs the tests, and says in the last line how many passed.
#
#   scripts/test.sh [unit] [e2e] [pytest argument …]
#
# PRESET (release): the build to test. JOBS: parallel end-to-end tests (default: two per processor; they mostly wait).
set -euo pipefail
cd "$(dirname "$0")/.."

preset=${PRESET:-release}
unit= e2e=
while [ $# -gt 0 ]; do
    case $1 in
    unit) unit=1 ;;
    e2e) e2e=1 ;;
    *) break ;;
    esac
    shift
done

scripts/deps.sh build test
[ -z "$e2e" ] || scripts/venv.sh
scripts/build.sh "$preset" -DLLM_TESTS=ON

results=build/$preset/results
rm -rf "$results"
mkdir -p "$results"
status=0

if [ -n "$unit" ]; then
    echo "== Unit tests"
    # detect_leaks needs ptrace, which containers often deny; the leak checks of the end-to-end tests look from outside.
    ASAN_OPTIONS=detect_leaks=0 ctest --test-dir "build/$preset" --output-on-failure -j "$(nproc)" --no-tests=error \
        --output-junit "$PWD/$results/unit.xml" >"$results/unit.log" 2>&1 || {
        status=1
        grep -v ' Passed ' "$results/unit.log" | tail -n 200
    }
    tail -n 4 "$results/unit.log" | grep 'tests passed' || true
fi

if [ -n "$e2e" ]; then
    echo "== End-to-end tests"
    BUILD_DIR=build/$preset .venv/bin/pytest tests/e2e -q -n "${JOBS:-$(($(nproc) * 2))}" --dist worksteal \
        --junitxml="$results/e2e.xml" "$@" || status=1
    if [ $# -eq 0 ]; then
        echo "== llm-engine by itself"
        LLM_ENGINE="$PWD/build/$preset/llm-engine" .venv/bin/pytest tests/e2e_engine -q -n "$(nproc)" \
            --junitxml="$results/engine.xml" || status=1
    fi
fi

# The last line counts what the result files say; a missing file counts as a failure.
expected=()
[ -z "$unit" ] || expected+=("$results/unit.xml")
[ -z "$e2e" ] || expected+=("$results/e2e.xml")
[ -z "$e2e" ] || [ $# -gt 0 ] || expected+=("$results/engine.xml")
/usr/bin/python3 scripts/count_results.py "${expected[@]}" || status=1
exit $status
