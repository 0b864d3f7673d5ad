// The kernels in plain C++, for any machine; also the description of the vector operations that
// kernels_impl.inc is written over.
#include <cstring>

#include "engine_worker/backend/cpu/kernels.hpp"

namespace llm::engine {
namespace {

// Sixteen f32.
struct V {
    float lane[16];
};
// Sixteen i32.
struct I {
    int32_t lane[16];
};

template <typename Operation>
inline V v_map(Operation operation) {
    V result;
    for (int i = 0; i < 16; i++) {
        result.lane[i] = operation(i);
    }
    return result;
}

inline V v_set1(float x) {
    return v_map([&](int) { return x; });
}
inline V v_zero() {
    return v_set1(0.0f);
}
inline V v_load(const float* p) {
    return v_map([&](int i) { return p[i]; });
}
inline void v_store(float* p, const V& a) {
    std::memcpy(p, a.lane, sizeof(a.lane));
}
inline V v_add(const V& a, const V& b) {
    return v_map([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline V v_sub(const V& a, const V& b) {
    return v_map([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline V v_mul(const V& a, const V& b) {
    return v_map([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline V v_div(const V& a, const V& b) {
    return v_map([&](int i) { return a.lane[i] / b.lane[i]; });
}
// b where a is NaN, as the instruction does.
inline V v_max(const V& a, const V& b) {
    return v_map([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline V v_abs(const V& a) {
    return v_map([&](int i) { return __builtin_fabsf(a.lane[i]); });
}
// a * b + c; fused where the machine can, always the same way within one table of kernels.
inline V v_fma(const V& a, const V& b, const V& c) {
    return v_map([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
}
// To the nearest integer.
inline V v_round(const V& a) {
    return v_map([&](int i) { return __builtin_rintf(a.lane[i]); });
}
// 2 to the power of an integer in [-126, 127].
inline V v_exp2i(const V& a) {
    return v_map([&](int i) {
        const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(a.lane[i]) + 127) << 23;
        float result;
        std::memcpy(&result, &bits, sizeof(result));
        return result;
    });
}
// a < b ? yes : no
inline V v_select_lt(const V& a, const V& b, const V& yes, const V& no) {
    return v_map([&](int i) { return a.lane[i] < b.lane[i] ? yes.lane[i] : no.lane[i]; });
}
inline float v_reduce_add(const V& a) {
    float sum = 0;
    for (float x : a.lane) {
        sum += x;
    }
    return sum;
}
inline float v_reduce_max(const V& a) {
    float largest = a.lane[0];
    for (float x : a.lane) {
        largest = x > largest ? x : largest;
    }
    return largest;
}
inline float widen(uint32_t bits) {
    float result;
    std::memcpy(&result, &bits, sizeof(result));
    return result;
}
// Rounds to nearest even; NaN stays NaN.
inline void v_store_bf16(uint16_t* p, const V& a) {
    for (int i = 0; i < 16; i++) {
        uint32_t bits;
        std::memcpy(&bits, &a.lane[i], sizeof(bits));
        const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
        p[i] =
            static_cast<uint16_t>(nan ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    }
}

// Sixteen pairs of bf16 side by side, in the form of load_bf16_weights(): from two rows, or rounded.
inline void store_bf16_pairs(void* p, const uint16_t* first, const uint16_t* second) {
    auto* out = static_cast<uint16_t*>(p);
    for (int i = 0; i < 16; i++) {
        out[2 * i] = first[i];
        out[2 * i + 1] = second[i];
    }
}
inline void v_store_bf16_pairs(void* p, const V& first, const V& second) {  // of no NaN
    uint16_t halves[2][16];
    v_store_bf16(halves[0], first);
    v_store_bf16(halves[1], second);
    store_bf16_pairs(p, halves[0], halves[1]);
}

// Of whole numbers in [-127, 127].
inline void v_store_int8(int8_t* p, const V& a) {
    for (int i = 0; i < 16; i++) {
        p[i] = static_cast<int8_t>(a.lane[i]);
    }
}

// Sixteen pairs of bf16 weights, one pair of inputs, and sum += w0 * x0 + w1 * x1.
struct Bf16Weights {
    V even, odd;
};
struct Bf16Input {
    float even, odd;
};
inline Bf16Weights load_bf16_weights(const std::byte* p) {
    uint32_t pairs[16];
    std::memcpy(pairs, p, sizeof(pairs));
    return {v_map([&](int i) { return widen(pairs[i] << 16); }),
            v_map([&](int i) { return widen(pairs[i] & 0xffff0000u); })};
}
inline Bf16Input load_bf16_input(const std::byte* p) {
    uint32_t pair;
    std::memcpy(&pair, p, sizeof(pair));
    return {widen(pair << 16), widen(pair & 0xffff0000u)};
}
inline V dot_bf16(const V& sum, const Bf16Weights& w, const Bf16Input& x) {
    return v_map([&](int i) { return (sum.lane[i] + w.even.lane[i] * x.even) + w.odd.lane[i] * x.odd; });
}

// Sixteen quadruples of u8 weights, one quadruple of i8 inputs, exact sum.
struct Int8Weights {
    uint8_t lane[16][4];
};
struct Int8Input {
    int8_t lane[4];
};
inline Int8Weights load_int8_weights(const std::byte* p) {
    Int8Weights w;
    std::memcpy(w.lane, p, sizeof(w.lane));
    return w;
}
inline Int8Input load_int8_input(const std::byte* p) {
    Int8Input x;
    std::memcpy(x.lane, p, sizeof(x.lane));
    return x;
}
inline I dot_int8(I sum, const Int8Weights& w, const Int8Input& x) {
    for (int i = 0; i < 16; i++) {
        for (int j = 0; j < 4; j++) {
            sum.lane[i] += int32_t{w.lane[i][j]} * int32_t{x.lane[j]};
        }
    }
    return sum;
}
inline I i_set1(int32_t x) {
    I result;
    for (int32_t& lane : result.lane) {
        lane = x;
    }
    return result;
}
inline I i_add(I a, const I& b) {
    for (int i = 0; i < 16; i++) {
        a.lane[i] += b.lane[i];
    }
    return a;
}
inline V i_to_v(const I& a) {
    return v_map([&](int i) { return static_cast<float>(a.lane[i]); });
}

// Tile height of products, and tile shapes of attention: what the registers hold.
constexpr int kTileRows = 1;
constexpr int kTileRowsInt8 = 1;
constexpr int kScoreRows = 1;
constexpr int kMixQueries = 1;

#include "engine_worker/backend/cpu/kernels_impl.inc"

}  // namespace

const Kernels kKernelsGeneric = {"generic", matmul,      prepare, attention, rms_norm,
                                 rotate,    f32_to_bf16, max_of,  sum_exp,   exp_all};

}  // namespace llm::engine
