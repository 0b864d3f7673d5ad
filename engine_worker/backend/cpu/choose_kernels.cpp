#include <stdexcept>
#include <string>

#include "engine_worker/backend/cpu/kernels.hpp"

namespace llm::engine {
namespace {

struct Candidate {
    const Kernels* kernels;
    bool usable;
};

}  // namespace

const Kernels& choose_kernels(const char* name) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
    const Candidate candidates[] = {{&kKernelsAvx512Bf16, bf16},
                                    {&kKernelsAvx512, avx512},
                                    {&kKernelsAvx2, avx2},
                                    {&kKernelsGeneric, true}};
#else
    const Candidate candidates[] = {{&kKernelsGeneric, true}};
#endif
    const std::string wanted = name;
    for (const Candidate& candidate : candidates) {
        if (candidate.usable && (wanted == "auto" || wanted == candidate.kernels->name)) {
            return *candidate.kernels;
        }
    }
    throw std::runtime_error("CPU kernels \"" + wanted + "\" do not exist or cannot run on this machine");
}

}  // namespace llm::engine
