#include "engine_worker/model/dtype.hpp"

#include <array>
#include <cassert>
#include <utility>

namespace llm::engine {
namespace {

constexpr std::array<std::pair<std::string_view, DType>, 15> kNames{{{"F32", DType::kF32},
                                                                     {"F16", DType::kF16},
                                                                     {"BF16", DType::kBf16},
                                                                     {"F64", DType::kF64},
                                                                     {"F8_E4M3", DType::kF8E4M3},
                                                                     {"F8_E5M2", DType::kF8E5M2},
                                                                     {"I64", DType::kI64},
                                                                     {"I32", DType::kI32},
                                                                     {"I16", DType::kI16},
                                                                     {"I8", DType::kI8},
                                                                     {"U64", DType::kU64},
                                                                     {"U32", DType::kU32},
                                                                     {"U16", DType::kU16},
                                                                     {"U8", DType::kU8},
                                                                     {"BOOL", DType::kBool}}};

template <typename Convert>
void convert_u16(const std::byte* source, size_t count, float* out, Convert convert) {
    for (size_t i = 0; i < count; i++) {
        uint16_t value;
        std::memcpy(&value, source + 2 * i, sizeof(value));
        out[i] = convert(value);
    }
}

}  // namespace

std::string_view dtype_name(DType type) {
    for (const auto& [name, value] : kNames) {
        if (value == type) {
            return name;
        }
    }
    return "?";
}

bool parse_dtype(std::string_view name, DType& type) {
    for (const auto& [known, value] : kNames) {
        if (known == name) {
            type = value;
            return true;
        }
    }
    return false;
}

uint16_t f32_to_f16(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
    const uint32_t rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) {
        return static_cast<uint16_t>(sign | 0x7e00u);
    }
    if (rest >= 0x477ff000u) {  // 65520 and more rounds to infinity
        return static_cast<uint16_t>(sign | 0x7c00u);
    }
    if (rest < 0x38800000u) {
        // Below 2^-14 the result is subnormal: adding 0.5 leaves the f16 mantissa, rounded by the hardware to
        // nearest even, in the low bits of the f32 one.
        const float shifted = std::bit_cast<float>(rest) + 0.5f;
        return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
    }
    const uint32_t rounded = rest + 0xfffu + ((rest >> 13) & 1u);
    return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

void convert_to_f32(DType type, const std::byte* source, size_t count, float* out) {
    switch (type) {
        case DType::kF32:
            std::memcpy(out, source, count * sizeof(float));
            return;
        case DType::kBf16:
            convert_u16(source, count, out, bf16_to_f32);
            return;
        case DType::kF16:
            convert_u16(source, count, out, f16_to_f32);
            return;
        default:
            assert(false && "convert_to_f32: not a weight format");
    }
}

}  // namespace llm::engine
