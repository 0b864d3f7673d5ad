#!/usr/bin/env bash
# Builds the Debian packages into build/packages and names them. The module's fits the nginx that is installed here.
#
#   scripts/package.sh [BUILD_DIR [OUTPUT_DIR]]     of a build that is there already
set -euo pipefail
cd "$(dirname "$0")/.."

build=${1:-build/release}
output=${2:-build/packages}
if [ $# -eq 0 ]; then
    scripts/deps.sh build package
    scripts/build.sh release -- llm-engine llmctl llm-reporter ngx_http_llm_dispatch_module
fi
command -v dpkg-shlibdeps >/dev/null || { echo "scripts/package.sh needs dpkg-shlibdeps (package dpkg-dev)." >&2; exit 1; }
umask 022 # directories in the packages get their modes from it
mkdir -p "$output"
# of another version or for another nginx: `apt-get install ./*.deb` means those of today
rm -f "$output"/{libnginx-mod-http-llm-dispatch,llm-engine,llm-dispatch-tools}_*.deb
log=$output/cpack.log
if ! cpack --config "$build/CPackConfig.cmake" -B "$output" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "Packaging failed (everything is in $log)." >&2
    exit 1
fi
rm -rf "$output/_CPack_Packages"
ls "$output"/*.deb
