// The kernels with AVX-512 F, BW, DQ, VL: no bf16 and no int8 products in hardware, so both are widened.
#include <immintrin.h>

#include "engine_worker/backend/cpu/kernels.hpp"

namespace llm::engine {
namespace {

#include "engine_worker/backend/cpu/vector_avx512.inc"

struct Bf16Weights {
    V even, odd;
};
struct Bf16Input {
    V even, odd;
};
inline I high_half(I a) {
    return _mm512_and_si512(a, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u)));
}
inline Bf16Weights load_bf16_weights(const std::byte* p) {
    const I pairs = _mm512_loadu_si512(p);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)), _mm512_castsi512_ps(high_half(pairs))};
}
inline Bf16Input load_bf16_input(const std::byte* p) {
    const I pair = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(p));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)), _mm512_castsi512_ps(high_half(pair))};
}
inline V dot_bf16(V sum, const Bf16Weights& w, const Bf16Input& x) {
    return _mm512_fmadd_ps(w.odd, x.odd, _mm512_fmadd_ps(w.even, x.even, sum));
}

// As 16-bit pairs: bytes 0 and 2 of each quadruple, bytes 1 and 3.
struct Int8Weights {
    I even, odd;
};
struct Int8Input {
    I even, odd;
};
inline Int8Weights load_int8_weights(const std::byte* p) {
    const I bytes = _mm512_loadu_si512(p);
    return {_mm512_and_si512(bytes, _mm512_set1_epi16(0xff)), _mm512_srli_epi16(bytes, 8)};
}
inline Int8Input load_int8_input(const std::byte* p) {
    const I bytes = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(p));
    return {_mm512_srai_epi16(_mm512_slli_epi16(bytes, 8), 8), _mm512_srai_epi16(bytes, 8)};
}
inline I dot_int8(I sum, const Int8Weights& w, const Int8Input& x) {
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(w.even, x.even));
    return _mm512_add_epi32(sum, _mm512_madd_epi16(w.odd, x.odd));
}

constexpr int kTileRows = 6;
constexpr int kTileRowsInt8 = 4;

#include "engine_worker/backend/cpu/kernels_impl.inc"

}  // namespace

const Kernels kKernelsAvx512 = {"avx512", matmul,      prepare, attention, rms_norm,
                                rotate,   f32_to_bf16, max_of,  sum_exp,   exp_all};

}  // namespace llm::engine
