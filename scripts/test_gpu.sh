#!/usr/bin/env bash
# The CUDA backend on this machine's GPU: every kernel against float64, whole models against the CPU backend, graphs
# against eager steps, then the kernels under compute-sanitizer. The last line says how many passed.
#
#   BUILD_DIR=dir   runs the programs there (scripts/gpu_programs.sh) instead of building them
#
# Without a GPU or a CUDA toolkit it says so and runs nothing. Under ten minutes: what takes longer than its share counts as failed.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/gpu_common.sh

if ! have_gpu; then
    echo "No NVIDIA GPU was found on this machine: no test was run."
    exit 0
fi
if [ -z "${BUILD_DIR:-}" ] && ! command -v nvcc >/dev/null && [ ! -x /usr/local/cuda/bin/nvcc ]; then
    echo "There is a GPU, but no CUDA toolkit (nvcc) to build the tests with: no test was run."
    exit 1
fi
gpu_programs cuda_gpu_test llm_backend_cuda.so

results=$programs/results
mkdir -p "$results"
rm -f "$results"/gpu*.xml "$results"/gpu*.log
status=0
timeout 200 "$programs/cuda_gpu_test" --gtest_brief=1 --gtest_output="xml:$results/gpu.xml" || status=1
expected=("$results/gpu.xml")

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
if [ -n "$sanitizer" ]; then
    kernels='Gemv.Every*:GemvNorm.*:DecodeAttention.*:PrefillAttention.*:Elementwise.*:GpuSampler.*:*Constructed*'
    for tool in memcheck racecheck; do
        # What a call returns is looked at where it is made. Reported here would be libraries' questions, too, for functions that the driver
        # is too old to have.
        options=(--tool "$tool" --report-api-errors no --error-exitcode 9 --print-limit 20)
        if [ "$tool" = racecheck ]; then
            # Products of more rows copy in the background what they then exchange; beyond a matrix they name addresses that they do not read.
            kernels+=':Gemv.MoreRows'
            options+=(--kernel-regex kns=llm6engine) # of mangled names: cuBLASLt's kernels are not ours to mend
        fi
        echo "== compute-sanitizer --tool $tool"
        # An error that the sanitizer finds makes the status 9, whatever the tests say.
        timeout 150 "$sanitizer" "${options[@]}" "$programs/cuda_gpu_test" --gtest_brief=1 \
            --gtest_filter="$kernels" \
            --gtest_output="xml:$results/gpu-$tool.xml" >"$results/gpu-$tool.log" 2>&1 || {
            status=1
            tail -n 60 "$results/gpu-$tool.log"
            echo "$tool failed (everything is in $results/gpu-$tool.log)"
        }
        expected+=("$results/gpu-$tool.xml")
    done
else
    echo "compute-sanitizer is not installed: memcheck and racecheck were not run."
fi
if command -v cuobjdump >/dev/null && command -v nvdisasm >/dev/null; then
    echo "== What is loaded before a kernel waits"
    cuobjdump -sass -arch sm_90 "$programs/llm_backend_cuda.so" | "$system_python" scripts/check_launch_order.py || status=1
else
    echo "cuobjdump is not installed: the order of loads in the machine code was not checked."
fi
"$system_python" scripts/count_results.py "${expected[@]}" || status=1
exit $status
