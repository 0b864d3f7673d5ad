#!/usr/bin/env bash
# Builds a program of this directory and runs it: bench/core/run.sh PROGRAM [ARGUMENT …]. BUILD_DIR=dir runs the one that is there.
# Exits 2 when it cannot be built, which is not the 1 of a figure out of its bounds.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
program=$1
shift
if [ -z "${BUILD_DIR:-}" ]; then
    "$root/scripts/build.sh" release -- "$program" >&2 || exit 2
fi
exec "${BUILD_DIR:-$root/build/release}/$program" "$@"
