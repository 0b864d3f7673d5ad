#!/bin/sh
# Builds a program of this directory and runs it: bench/core/run.sh PROGRAM [ARGUMENT …]. BUILD_DIR names another build than the release.
set -e
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD_DIR:-$root/build/release}
program=$1
shift
[ -f "$build/build.ninja" ] || cmake --preset release -S "$root" >/dev/null
cmake --build "$build" --target "$program" >/dev/null
exec "$build/$program" "$@"
