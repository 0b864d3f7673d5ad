// The kernels with AVX2 and FMA: sixteen lanes are two registers.
#include <immintrin.h>

#include "engine_worker/backend/cpu/kernels.hpp"

namespace llm::engine {
namespace {

struct V {
    __m256 a, b;
};
struct I {
    __m256i a, b;
};

inline V v_set1(float x) {
    return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
inline V v_zero() {
    return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
inline V v_load(const float* p) {
    return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
inline void v_store(float* p, V x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
inline V v_add(V x, V y) {
    return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
inline V v_sub(V x, V y) {
    return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
inline V v_mul(V x, V y) {
    return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
inline V v_div(V x, V y) {
    return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
inline V v_max(V x, V y) {
    return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}
inline __m256 abs_half(__m256 x) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}
inline V v_abs(V x) {
    return {abs_half(x.a), abs_half(x.b)};
}
inline V v_fma(V x, V y, V z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline __m256 round_half(__m256 x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline V v_round(V x) {
    return {round_half(x.a), round_half(x.b)};
}
inline __m256 exp2i_half(__m256 x) {
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
inline V v_exp2i(V x) {
    return {exp2i_half(x.a), exp2i_half(x.b)};
}
inline V v_select_lt(V x, V y, V yes, V no) {
    return {_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
            _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
}
inline float v_reduce_add(V x) {
    const __m256 sum = _mm256_add_ps(x.a, x.b);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
}
inline float v_reduce_max(V x) {
    const __m256 largest = _mm256_max_ps(x.a, x.b);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_shuffle_ps(four, four, 1)));
}
inline void round_bf16_half(uint16_t* p, __m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i high = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i result = _mm256_blendv_epi8(rounded, quiet, nan);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packus_epi32(_mm256_castsi256_si128(result), _mm256_extracti128_si256(result, 1)));
}
inline void v_store_bf16(uint16_t* p, V x) {
    round_bf16_half(p, x.a);
    round_bf16_half(p + 8, x.b);
}
inline __m256i widen_16(const uint16_t* p) {
    return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline void store_bf16_pairs(void* p, const uint16_t* first, const uint16_t* second) {
    auto* out = static_cast<__m256i*>(p);
    _mm256_storeu_si256(out, _mm256_or_si256(widen_16(first), _mm256_slli_epi32(widen_16(second), 16)));
    _mm256_storeu_si256(out + 1,
                        _mm256_or_si256(widen_16(first + 8), _mm256_slli_epi32(widen_16(second + 8), 16)));
}
inline void v_store_bf16_pairs(void* p, V first, V second) {
    alignas(32) uint16_t halves[2][16];
    v_store_bf16(halves[0], first);
    v_store_bf16(halves[1], second);
    store_bf16_pairs(p, halves[0], halves[1]);
}

inline __m128i narrow_half(__m256 x) {
    const __m256i whole = _mm256_cvtps_epi32(x);
    return _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
}
inline void v_store_int8(int8_t* p, V x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(narrow_half(x.a), narrow_half(x.b)));
}

inline I load_256(const std::byte* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
inline __m256i high_half(__m256i x) {
    return _mm256_and_si256(x, _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u)));
}

struct Bf16Weights {
    V even, odd;
};
struct Bf16Input {
    __m256 even, odd;
};
inline Bf16Weights load_bf16_weights(const std::byte* p) {
    const I pairs = load_256(p);
    return {{_mm256_castsi256_ps(_mm256_slli_epi32(pairs.a, 16)),
             _mm256_castsi256_ps(_mm256_slli_epi32(pairs.b, 16))},
            {_mm256_castsi256_ps(high_half(pairs.a)), _mm256_castsi256_ps(high_half(pairs.b))}};
}
inline Bf16Input load_bf16_input(const std::byte* p) {
    const __m256i pair = _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(pair, 16)), _mm256_castsi256_ps(high_half(pair))};
}
inline V dot_bf16(V sum, const Bf16Weights& w, const Bf16Input& x) {
    return {_mm256_fmadd_ps(w.odd.a, x.odd, _mm256_fmadd_ps(w.even.a, x.even, sum.a)),
            _mm256_fmadd_ps(w.odd.b, x.odd, _mm256_fmadd_ps(w.even.b, x.even, sum.b))};
}

// As 16-bit pairs: bytes 0 and 2 of each quadruple, bytes 1 and 3. (The byte-wise multiply-add of AVX2
// saturates.)
struct Int8Weights {
    I even, odd;
};
struct Int8Input {
    __m256i even, odd;
};
inline Int8Weights load_int8_weights(const std::byte* p) {
    const I bytes = load_256(p);
    const __m256i low = _mm256_set1_epi16(0xff);
    return {{_mm256_and_si256(bytes.a, low), _mm256_and_si256(bytes.b, low)},
            {_mm256_srli_epi16(bytes.a, 8), _mm256_srli_epi16(bytes.b, 8)}};
}
inline Int8Input load_int8_input(const std::byte* p) {
    const __m256i bytes = _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(p));
    return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
}
inline I dot_int8(I sum, const Int8Weights& w, const Int8Input& x) {
    sum.a = _mm256_add_epi32(sum.a, _mm256_madd_epi16(w.even.a, x.even));
    sum.b = _mm256_add_epi32(sum.b, _mm256_madd_epi16(w.even.b, x.even));
    sum.a = _mm256_add_epi32(sum.a, _mm256_madd_epi16(w.odd.a, x.odd));
    sum.b = _mm256_add_epi32(sum.b, _mm256_madd_epi16(w.odd.b, x.odd));
    return sum;
}
inline I i_set1(int32_t x) {
    return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
inline I i_add(I x, I y) {
    return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)};
}
inline V i_to_v(I x) {
    return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)};
}

constexpr int kTileRows = 2;
constexpr int kTileRowsInt8 = 1;
constexpr int kScoreRows = 2;
constexpr int kMixQueries = 1;

#include "engine_worker/backend/cpu/kernels_impl.inc"

}  // namespace

const Kernels kKernelsAvx2 = {"avx2", matmul,      prepare, attention, rms_norm,
                              rotate, f32_to_bf16, max_of,  sum_exp,   exp_all};

}  // namespace llm::engine
