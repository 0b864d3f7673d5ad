// The kernels with AVX-512 BF16 (vdpbf16ps) and VNNI (vpdpbusd).
#include <immintrin.h>

#include "engine_worker/backend/cpu/kernels.hpp"

namespace llm::engine {
namespace {

#include "engine_worker/backend/cpu/vector_avx512.inc"

using Bf16Weights = __m512bh;
using Bf16Input = __m512bh;
inline Bf16Weights load_bf16_weights(const std::byte* p) {
    return (__m512bh)_mm512_loadu_si512(p);
}
inline Bf16Input load_bf16_input(const std::byte* p) {
    return (__m512bh)_mm512_set1_epi32(*reinterpret_cast<const int32_t*>(p));
}
inline V dot_bf16(V sum, Bf16Weights w, Bf16Input x) {
    return _mm512_dpbf16_ps(sum, w, x);
}

using Int8Weights = I;
using Int8Input = I;
inline Int8Weights load_int8_weights(const std::byte* p) {
    return _mm512_loadu_si512(p);
}
inline Int8Input load_int8_input(const std::byte* p) {
    return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(p));
}
// Spelled out, because GCC 12 copies every sum twice around the intrinsic: half of the loop's instructions.
inline I dot_int8(I sum, Int8Weights w, Int8Input x) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
    return sum;
}

constexpr int kTileRows = 8;
constexpr int kTileRowsInt8 = 8;

#include "engine_worker/backend/cpu/kernels_impl.inc"

}  // namespace

const Kernels kKernelsAvx512Bf16 = {"avx512_bf16", matmul,      prepare, attention, rms_norm,
                                    rotate,        f32_to_bf16, max_of,  sum_exp,   exp_all};

}  // namespace llm::engine
