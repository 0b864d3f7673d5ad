# shellcheck shell=bash
# For scripts/test_gpu.sh and bench/engine-gpu, which source this from the top of the tree.

have_gpu() {
    command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU '
}

# Sets `programs` to the directory of the programs that are named: built here, or, with BUILD_DIR, what is there already
# (scripts/gpu_programs.sh makes such a directory for machines where nothing can be installed).
gpu_programs() {
    if [ -z "${BUILD_DIR:-}" ]; then
        scripts/deps.sh build test
        scripts/build.sh cuda -DLLM_TESTS=ON -- "$@"
        programs=build/cuda
        return
    fi
    programs=$(cd "$BUILD_DIR" && pwd)
    local path=$programs/lib directory name
    for directory in /usr/local/cuda/lib64 /usr/local/cuda/targets/*/lib \
        $(python3 -c 'import sys; print(*(p + "/nvidia/" + n + "/lib" for p in sys.path for n in ("cu13", "cublas")))' 2>/dev/null); do
        ! compgen -G "$directory/libcublasLt.so*" >/dev/null || path=$path:$directory
    done
    export LD_LIBRARY_PATH=$path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LLM_MODEL_GOLDENS=$PWD/tests/golden/models
    for name in "$@"; do
        if ! [ -x "$programs/$name" ]; then
            echo "$programs has no $name." >&2
            return 1
        fi
        if ldd "$programs/$name" 2>&1 | grep -E 'not found'; then
            echo "$programs/$name cannot be started on this machine." >&2
            return 1
        fi
    done
}

# Debian's own, or whatever there is: the scripts need nothing but the standard library.
system_python=/usr/bin/python3
[ -x $system_python ] || system_python=python3
