// Number formats of weights, and the conversions between them that every part must make alike.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace llm::engine {

// The formats a safetensors header can name. Only the first three are computed with; the others are known so
// that a file that holds them is measured correctly and refused by name.
enum class DType : uint8_t {
    kF32,
    kF16,
    kBf16,
    kF64,
    kF8E4M3,
    kF8E5M2,
    kI64,
    kI32,
    kI16,
    kI8,
    kU64,
    kU32,
    kU16,
    kU8,
    kBool
};

// Bytes of one element.
constexpr size_t dtype_size(DType type) {
    switch (type) {
        case DType::kF64:
        case DType::kI64:
        case DType::kU64:
            return 8;
        case DType::kF32:
        case DType::kI32:
        case DType::kU32:
            return 4;
        case DType::kF16:
        case DType::kBf16:
        case DType::kI16:
        case DType::kU16:
            return 2;
        default:
            return 1;
    }
}

// As a safetensors header spells it.
std::string_view dtype_name(DType type);
// False: no such format is known.
bool parse_dtype(std::string_view name, DType& type);

inline float bf16_to_f32(uint16_t value) {
    return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

// Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
inline uint16_t f32_to_bf16(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return static_cast<uint16_t>((bits >> 16) | 0x40u);
    }
    return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// IEEE 754 binary16, exact.
inline float f16_to_f32(uint16_t value) {
    const uint32_t sign = static_cast<uint32_t>(value & 0x8000u) << 16;
    const uint32_t rest = value & 0x7fffu;
    if (rest >= 0x7c00u) {  // infinity, NaN
        return std::bit_cast<float>(sign | 0x7f800000u | ((rest & 0x3ffu) << 13));
    }
    if (rest < 0x0400u) {  // zero, subnormal: rest * 2^-24
        const float magnitude = static_cast<float>(rest) * 0x1p-24f;
        return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
    }
    return std::bit_cast<float>(sign | ((rest + 0x1c000u) << 13));
}

// Rounds to nearest, ties to even; overflows to infinity.
uint16_t f32_to_f16(float value);

// Converts `count` elements, which need no alignment, to f32. `type` is kF32, kF16 or kBf16.
void convert_to_f32(DType type, const std::byte* source, size_t count, float* out);

}  // namespace llm::engine
