#!/usr/bin/env bash
# Builds the fuzz targets with clang and runs each for FUZZ_SECONDS (60) from its seeds in tests/fuzz/corpus.
#
#   scripts/fuzz.sh [target …]
#
# New inputs go to build/fuzz/corpus; an input that breaks a target stays in build/fuzz and its path is printed.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/deps.sh build test fuzz
scripts/build.sh fuzz -DLLM_ENGINE=ON

seconds=${FUZZ_SECONDS:-60}
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    # every fuzz target is a program of the build directory named fuzz_*
    for program in build/fuzz/fuzz_* build/fuzz/*_fuzz; do
        [ ! -f "$program" ] || [ ! -x "$program" ] || targets+=("$(basename "$program")")
    done
fi
[ ${#targets[@]} -gt 0 ] || {
    echo "No fuzz target was built." >&2
    exit 1
}

passed=0 failed=0
for target in "${targets[@]}"; do
    found=build/fuzz/corpus/$target
    seeds=tests/fuzz/corpus/$target
    mkdir -p "$found"
    corpora=("$found")
    [ ! -d "$seeds" ] || corpora+=("$seeds")
    echo "== $target for $seconds s"
    # the first directory receives new inputs, the seeds in the repository stay as they are
    if "build/fuzz/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=0 \
        -artifact_prefix="build/fuzz/$target-" "${corpora[@]}" >"build/fuzz/$target.log" 2>&1; then
        tail -n 1 "build/fuzz/$target.log"
        passed=$((passed + 1))
    else
        tail -n 40 "build/fuzz/$target.log" >&2
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
