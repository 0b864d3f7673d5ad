#!/usr/bin/env bash
# Builds the fuzz targets with clang and runs each for FUZZ_SECONDS (60) from its seeds in tests/fuzz/corpus.
#
#   scripts/fuzz.sh [target …]
#
# New inputs go to build/fuzz/corpus; an input that breaks a target stays in build/fuzz and its path is printed.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/deps.sh build test fuzz
scripts/build.sh fuzz -DLLM_ENGINE=ON -DLLM_TESTS=OFF -- llm_fuzz_targets

seconds=${FUZZ_SECONDS:-60}
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    # every fuzz target is a program of the build directory named fuzz_* or *_fuzz
    for program in build/fuzz/fuzz_* build/fuzz/*_fuzz; do
        [ ! -f "$program" ] || [ ! -x "$program" ] || targets+=("$(basename "$program")")
    done
fi
[ ${#targets[@]} -gt 0 ] || {
    echo "No fuzz target was built." >&2
    exit 1
}

# One target: 0 when nothing was found. The first directory receives new inputs, the seeds in the repository stay as they are.
fuzz() {
    local found=build/fuzz/corpus/$1 seeds=tests/fuzz/corpus/$1
    mkdir -p "$found"
    local corpora=("$found")
    [ ! -d "$seeds" ] || corpora+=("$seeds")
    if "build/fuzz/$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="build/fuzz/$1-" "${corpora[@]}" >"build/fuzz/$1.log" 2>&1; then
        echo "   $1: $(tail -n 1 "build/fuzz/$1.log")"
    else
        tail -n 40 "build/fuzz/$1.log" >&2
        echo "   $1: FAILED (build/fuzz/$1.log)"
        return 1
    fi
}
export -f fuzz
export seconds

echo "== Fuzzing ${#targets[@]} targets for $seconds s each, $(nproc) at a time"
failed=0
rm -f build/fuzz/*.failed # of a run that was interrupted
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'fuzz {} || { touch build/fuzz/{}.failed; }'
for target in "${targets[@]}"; do
    if [ -e "build/fuzz/$target.failed" ]; then
        failed=$((failed + 1))
        rm "build/fuzz/$target.failed"
    fi
done
echo "$((${#targets[@]} - failed)) passed, $failed failed"
[ "$failed" -eq 0 ]
