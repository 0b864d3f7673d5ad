#!/usr/bin/env bash
# Configures and builds one preset of CMakePresets.json into build/<preset>, showing progress in long steps.
#
#   scripts/build.sh PRESET [cmake argument …] [-- target …]
#
# The compiler's full output is in build/<preset>/build.log; a failure shows its end and one sentence.
set -euo pipefail
cd "$(dirname "$0")/.."

preset=$1
shift
configure=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    configure+=("$1")
    shift
done
[ $# -eq 0 ] || shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(all)

directory=build/$preset
log=$directory/build.log
mkdir -p "$directory"

# two builds of one directory at a time would disturb each other
exec 9>"$directory/.lock"
flock 9

fail() {
    echo "$1 (everything is in $log)" >&2
    exit 1
}

# LLM_WERROR=ON in the environment makes warnings errors.
[ -z "${LLM_WERROR:-}" ] || configure+=("-DLLM_WERROR=$LLM_WERROR")

# Building needs no test libraries: scripts/test.sh asks for the tests, and a directory that has them keeps them.
[ -e "$directory/CMakeCache.txt" ] || configure=(-DLLM_TESTS=OFF "${configure[@]}")

if ! cmake --preset "$preset" "${configure[@]}" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "Configuring the build failed."
fi

# ninja prints "[done/all] …" per step; a line each ten seconds is enough to see that it lives.
shown=$SECONDS
started=
cmake --build --preset "$preset" --target "${targets[@]}" 2>&1 | while IFS= read -r line; do
    printf '%s\n' "$line" >>"$log"
    # "Re-checking globbed directories" and "Re-running CMake" are counted apart, before the real steps
    if [[ $line =~ ^\[([0-9]+)/([0-9]+)\]\ [^R] ]]; then
        [ -n "$started" ] || echo "== Building $directory: ${BASH_REMATCH[2]} steps"
        started=1
        if [ $((SECONDS - shown)) -ge 10 ]; then
            echo "   ${BASH_REMATCH[1]} of ${BASH_REMATCH[2]}"
            shown=$SECONDS
        fi
    fi
done || {
    grep -m1 -A 30 -E '^FAILED:|error:' "$log" >&2 || tail -n 30 "$log" >&2
    fail "The build failed."
}
