#!/usr/bin/env bash
# Builds an nginx from a source tree, the module against it, and runs the end-to-end tests with the two.
#
#   make test-mainline NGINX_SOURCE=/path/to/nginx
#
# The tree itself is not touched: a copy in build/nginx is configured. llm-engine, llmctl and llm-reporter come from build/release.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/nginx_tree.sh

if [ ! -x "${NGINX_SOURCE:-}/auto/configure" ] && [ ! -x "${NGINX_SOURCE:-}/configure" ]; then
    echo "NGINX_SOURCE=${NGINX_SOURCE:-} is no nginx source tree (it has no configure): give its path." >&2
    exit 1
fi

scripts/deps.sh build test
scripts/venv.sh
programs=(llm-engine llmctl llm-reporter)
scripts/build.sh release -- "${programs[@]}"

tree=build/nginx
build=build/mainline
log=$PWD/build/nginx.log
stamp=$tree/.source
mark=$(nginx_source_mark "$NGINX_SOURCE")
if [ "$(cat "$stamp" 2>/dev/null)" != "$mark" ]; then
    echo "== Building nginx"
    copy_nginx "$NGINX_SOURCE" "$tree"
    : >"$log"
    build_nginx "$tree" "$log"
    echo "$mark" >"$stamp"
fi

echo "== Building the module for $("$tree/objs/nginx" -v 2>&1)"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DLLM_WERROR=ON -DLLM_ENGINE=OFF -DLLM_TESTS=OFF \
    -DNGINX_BUILD_DIR="$PWD/$tree" >"$build.log" 2>&1 || { tail -n 20 "$build.log" >&2; exit 1; }
cmake --build "$build" --target ngx_http_llm_dispatch_module >>"$build.log" 2>&1 || { tail -n 30 "$build.log" >&2; exit 1; }
for program in "${programs[@]}"; do
    ln -sf "../release/$program" "$build/$program"
done

echo "== End-to-end tests"
NGINX_BINARY="$PWD/$tree/objs/nginx" BUILD_DIR="$build" .venv/bin/pytest tests/e2e -q -n "$(($(nproc) * 2))" --dist worksteal \
    --ignore=tests/e2e/test_make_run.py "$@"
