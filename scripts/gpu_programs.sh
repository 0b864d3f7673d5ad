#!/usr/bin/env bash
# Builds what `make test-gpu` and bench/engine-gpu run, for a machine with a GPU where nothing can be built or installed: it needs a driver,
# cuBLASLt of the same CUDA version, and a copy of this tree.
#
#   scripts/gpu_programs.sh DIR                        here
#   BUILD_DIR=DIR make test-gpu; BUILD_DIR=DIR bench/engine-gpu    there
#
# DIR gets the programs without debug information and the libraries that such machines seldom have: 50 MB, 15 as an archive (tar -cJ), where
# what may be carried there is limited.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 1 ] || {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
programs=(cuda_gpu_test engine_gpu_bench llm-engine llm_backend_cuda.so)

scripts/deps.sh build test
scripts/build.sh cuda -DLLM_TESTS=ON -- "${programs[@]%.so}"
mkdir -p "$1/lib"
for name in "${programs[@]}"; do
    strip -o "$1/$name" "build/cuda/$name"
    # not what belongs to any system; nor CUDA's and the driver's
    ldd "build/cuda/$name" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' |
        grep -vE '/(lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+|crypto|ssl)\.so|libcuda|libcublas)' || true
done | sort -u | while read -r library; do
    cp -L "$library" "$1/lib/"
done
du -sh "$1"
