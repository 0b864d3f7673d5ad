#!/usr/bin/env bash
# Installs what is missing, builds, runs the tests, and says in the last line how many passed.
#
#   scripts/test.sh [unit] [e2e] [engine] [pytest argument …]
#
# engine: llm-engine by itself, as the last part of e2e.
# PRESET (release): the build to test. JOBS: parallel tests of e2e and engine (default: four more than processors; they mostly wait).
set -euo pipefail
cd "$(dirname "$0")/.."

preset=${PRESET:-release}
unit= e2e= engine=
while [ $# -gt 0 ]; do
    case $1 in
    unit) unit=1 ;;
    e2e) e2e=1 engine=1 ;;
    engine) engine=1 ;;
    *) break ;;
    esac
    shift
done

[ $# -eq 0 ] || engine= # chosen end-to-end tests
scripts/deps.sh build unit

# What the end-to-end tests start, and their Python packages, come while cmake and the compiler work: in a process group
# of their own, so that Ctrl-C or a build that fails ends all of it. Where sudo asks for a password, that is over first.
others=
trap '[ -z "$others" ] || kill -- "-$others" 2>/dev/null || true' EXIT
if [ -n "$e2e$engine" ]; then
    if [ "$preset" = asan ] || ! { [ "$(id -u)" -eq 0 ] || sudo -n true; } 2>/dev/null; then
        scripts/deps.sh test # asan_nginx.sh below needs them
    fi
    set -m
    (scripts/deps.sh test && scripts/venv.sh) &
    others=$!
    set +m
fi

configure=(-DLLM_TESTS=ON)
pytest=(-q -n "${JOBS:-$(($(nproc) + 4))}" --dist worksteal)
case $preset in
asan)
    # detect_leaks needs ptrace, which containers often deny; the leak checks of the end-to-end tests look from outside.
    export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
    pytest+=(--timeout=600)
    if [ -n "$e2e" ]; then
        # what `make run` starts is the release; the rest runs with nginx, module and engine of this build
        pytest+=(--ignore=tests/e2e/test_make_run.py)
        if scripts/asan_nginx.sh; then
            export NGINX_BINARY=$PWD/build/nginx-asan/objs/nginx
            configure+=(-DNGINX_BUILD_DIR="$PWD/build/nginx-asan")
        elif [ $? -eq 3 ]; then
            echo "   The installed nginx is used, with the sanitizers in the module only."
            configure+=(-DNGINX_BUILD_DIR=)
        else
            exit 1
        fi
    fi
    ;;
tsan)
    export TSAN_OPTIONS=halt_on_error=1:abort_on_error=1:second_deadlock_stack=1
    pytest+=(--timeout=600)
    ;;
esac
scripts/build.sh "$preset" "${configure[@]}"
if [ -n "$others" ] && ! wait "$others"; then
    echo "The tests cannot run without their programs and Python packages (above is why they could not be installed)." >&2
    exit 1
fi
others=

results=build/$preset/results
rm -rf "$results"
mkdir -p "$results"
status=0

unit_tests() {
    ctest --test-dir "build/$preset" --output-on-failure -j "$(nproc)" --no-tests=error \
        --output-junit "$PWD/$results/unit.xml" >"$results/unit.log" 2>&1
}

tell_unit_tests() { # STATUS
    echo "== Unit tests"
    if [ "$1" -ne 0 ]; then
        status=1
        grep -v ' Passed ' "$results/unit.log" | tail -n 200
    fi
    tail -n 4 "$results/unit.log" | grep 'tests passed' || true
}

# Unit tests compute, end-to-end tests mostly wait: beside them the former take what is left of the processors.
if [ -n "$unit" ] && [ -n "$e2e$engine" ]; then
    set -m
    (renice -n 10 $BASHPID >/dev/null && unit_tests) &
    others=$!
    set +m
elif [ -n "$unit" ]; then
    unit_tests && tell_unit_tests 0 || tell_unit_tests $?
fi

if [ -n "$e2e" ]; then
    echo "== End-to-end tests"
    BUILD_DIR=build/$preset .venv/bin/pytest tests/e2e "${pytest[@]}" --junitxml="$results/e2e.xml" "$@" || status=1
fi

if [ -n "$engine" ]; then
    echo "== llm-engine by itself"
    BUILD_DIR=build/$preset .venv/bin/pytest tests/e2e_engine "${pytest[@]}" --junitxml="$results/engine.xml" || status=1
fi

if [ -n "$others" ]; then
    wait "$others" && tell_unit_tests 0 || tell_unit_tests $?
    others=
fi

# The last line counts what the result files say; a missing file counts as a failure.
expected=()
[ -z "$unit" ] || expected+=("$results/unit.xml")
[ -z "$e2e" ] || expected+=("$results/e2e.xml")
[ -z "$engine" ] || expected+=("$results/engine.xml")
/usr/bin/python3 scripts/count_results.py "${expected[@]}" || status=1
exit $status
