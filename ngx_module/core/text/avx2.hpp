// Vectors of 32 bytes, for functions that are called only where the CPU has AVX2. Internal to core/text.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace llm::core {

#define LLM_AVX2 __attribute__((target("avx2"))) inline

LLM_AVX2 __m256i load(const char* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

// Whether `size` bytes lie between `p` and `end`, which is not null. By address: there may be none at `end -
// size`.
inline bool fits(size_t size, const char* p, const char* end) {
    return reinterpret_cast<uintptr_t>(p) <= reinterpret_cast<uintptr_t>(end) - size;
}

// One byte, 32 times, in memory.
struct alignas(32) Every {
    uint8_t bytes[32];
};
constexpr Every every(uint8_t byte) {
    Every result{};
    for (uint8_t& each : result.bytes) {
        each = byte;
    }
    return result;
}

// The same as a vector. Volatile, so that it is loaded in one instruction: what the compiler knows, it builds
// at each call, in three.
LLM_AVX2 __m256i vector_of(const Every& bytes) {
    return *reinterpret_cast<const volatile __m256i*>(bytes.bytes);
}

}  // namespace llm::core

#endif  // __x86_64__
