// What a thread does by itself: arithmetic, comparisons, conversions, memory, jumps. Written from "Parallel Thread Execution ISA".
#include <algorithm>
#include <bit>
#include <cfenv>
#include <cmath>
#include <limits>
#include <map>
#include <type_traits>

#include "engine_worker/model/dtype.hpp"
#include "tests/support/ptx/machine.hpp"

namespace llm::ptx {
namespace {

using Table = std::map<std::string, Run, std::less<>>;

// ---- Integers ---------------------------------------------------------------------------------------------

template <typename T>
using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;

template <typename T>
void add_integers(Table& table, const std::string& type) {
    using U = std::make_unsigned_t<T>;
    static constexpr unsigned kBits = sizeof(T) * 8;
    table["add." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, static_cast<T>(U(t.get<U>(i, 1) + t.get<U>(i, 2)))); };
    table["sub." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, static_cast<T>(U(t.get<U>(i, 1) - t.get<U>(i, 2)))); };
    table["mul.lo." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, static_cast<T>(U(uint64_t{t.get<U>(i, 1)} * t.get<U>(i, 2)))); };
    table["mad.lo." + type] = [](Thread& t, const Instruction& i) {
        t.set(i, 0, static_cast<T>(U(uint64_t{t.get<U>(i, 1)} * t.get<U>(i, 2) + t.get<U>(i, 3))));
    };
    if constexpr (sizeof(T) <= 4) {
        table["mul.wide." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, Wide<T>{t.get<T>(i, 1)} * t.get<T>(i, 2)); };
        table["mul.hi." + type] = [](Thread& t, const Instruction& i) {
            t.set(i, 0, static_cast<T>((Wide<T>{t.get<T>(i, 1)} * t.get<T>(i, 2)) >> kBits));
        };
    }
    table["div." + type] = [](Thread& t, const Instruction& i) {
        if (t.get<T>(i, 2) == 0) {
            t.fail("a division by zero");
        }
        t.set(i, 0, static_cast<T>(t.get<T>(i, 1) / t.get<T>(i, 2)));
    };
    table["rem." + type] = [](Thread& t, const Instruction& i) {
        if (t.get<T>(i, 2) == 0) {
            t.fail("a division by zero");
        }
        t.set(i, 0, static_cast<T>(t.get<T>(i, 1) % t.get<T>(i, 2)));
    };
    table["min." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, std::min(t.get<T>(i, 1), t.get<T>(i, 2))); };
    table["max." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, std::max(t.get<T>(i, 1), t.get<T>(i, 2))); };
    table["neg." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, static_cast<T>(U(U{0} - t.get<U>(i, 1)))); };
    // Amounts above the width count as the width.
    table["shr." + type] = [](Thread& t, const Instruction& i) {
        const auto by = t.get<uint32_t>(i, 2);
        const T value = t.get<T>(i, 1);
        t.set(i, 0, by < kBits ? static_cast<T>(value >> by) : static_cast<T>(value < 0 ? -1 : 0));
    };
}

template <typename T>
void add_bits(Table& table, const std::string& type) {
    static constexpr unsigned kBits = sizeof(T) * 8;
    table["and." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, static_cast<T>(t.get<T>(i, 1) & t.get<T>(i, 2))); };
    table["or." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, static_cast<T>(t.get<T>(i, 1) | t.get<T>(i, 2))); };
    table["xor." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, static_cast<T>(t.get<T>(i, 1) ^ t.get<T>(i, 2))); };
    table["not." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, static_cast<T>(~t.get<T>(i, 1))); };
    table["shl." + type] = [](Thread& t, const Instruction& i) {
        const auto by = t.get<uint32_t>(i, 2);
        t.set(i, 0, by < kBits ? static_cast<T>(t.get<T>(i, 1) << by) : T{0});
    };
}

void add_predicates(Table& table) {
    table["and.pred"] = [](Thread& t, const Instruction& i) { t.set<uint32_t>(i, 0, t.predicate(i, 1) && t.predicate(i, 2) ? 1 : 0); };
    table["or.pred"] = [](Thread& t, const Instruction& i) { t.set<uint32_t>(i, 0, t.predicate(i, 1) || t.predicate(i, 2) ? 1 : 0); };
    table["xor.pred"] = [](Thread& t, const Instruction& i) { t.set<uint32_t>(i, 0, t.predicate(i, 1) != t.predicate(i, 2) ? 1 : 0); };
    table["not.pred"] = [](Thread& t, const Instruction& i) { t.set<uint32_t>(i, 0, t.predicate(i, 1) ? 0 : 1); };
    table["mov.pred"] = [](Thread& t, const Instruction& i) { t.set<uint32_t>(i, 0, t.predicate(i, 1) ? 1 : 0); };
}

void add_bit_fields(Table& table) {
    table["brev.b32"] = [](Thread& t, const Instruction& i) {
        uint32_t out = 0;
        for (unsigned bit = 0; bit < 32; bit++) {
            out |= (t.get<uint32_t>(i, 1) >> bit & 1) << (31 - bit);
        }
        t.set(i, 0, out);
    };
    // How far to the left the highest bit that is set would have to go; all ones if none is.
    table["bfind.shiftamt.u32"] = [](Thread& t, const Instruction& i) {
        const auto value = t.get<uint32_t>(i, 1);
        t.set<uint32_t>(i, 0, value == 0 ? 0xffffffffu : static_cast<uint32_t>(std::countl_zero(value)));
    };
    table["clz.b64"] = [](Thread& t, const Instruction& i) { t.set<uint32_t>(i, 0, static_cast<uint32_t>(std::countl_zero(t.get<uint64_t>(i, 1)))); };
    // The low bits of a, `length` of them, put into b at `position`.
    table["bfi.b64"] = [](Thread& t, const Instruction& i) {
        const auto from = t.get<uint64_t>(i, 1);
        auto out = t.get<uint64_t>(i, 2);
        const uint32_t position = t.get<uint32_t>(i, 3) & 0xff, length = t.get<uint32_t>(i, 4) & 0xff;
        for (uint32_t bit = 0; bit < length && position + bit < 64; bit++) {
            const uint64_t one = uint64_t{1} << (position + bit);
            out = bit < 64 && (from >> bit & 1) != 0 ? out | one : out & ~one;
        }
        t.set(i, 0, out);
    };
    // Bytes 0 to 3 are a's, 4 to 7 b's; a selector's fourth bit repeats the sign of the byte instead.
    table["prmt.b32"] = [](Thread& t, const Instruction& i) {
        const uint64_t bytes = uint64_t{t.get<uint32_t>(i, 2)} << 32 | t.get<uint32_t>(i, 1);
        const auto selector = t.get<uint32_t>(i, 3);
        uint32_t out = 0;
        for (unsigned n = 0; n < 4; n++) {
            const uint32_t select = selector >> (4 * n) & 0xf;
            const auto byte = static_cast<uint32_t>(bytes >> (8 * (select & 7)) & 0xff);
            out |= ((select & 8) == 0 ? byte : (byte & 0x80) != 0 ? 0xffu : 0u) << (8 * n);
        }
        t.set(i, 0, out);
    };
}

// ---- Floating point ---------------------------------------------------------------------------------------

// Arithmetic in f32 has one NaN, whose sign is positive (that of the host's is not).
float result(float value) { return std::isnan(value) ? std::bit_cast<float>(0x7fffffffu) : value; }
double result(double value) { return value; }

// Of a number and NaN the number; +0 is above -0.
template <typename T>
T larger(T a, T b) {
    return a == b ? (std::signbit(a) ? b : a) : std::fmax(a, b);
}
template <typename T>
void add_floats(Table& table, const std::string& type) {
    for (const char* rounding : {"", "rn."}) {
        const std::string name = rounding + type;
        table["add." + name] = [](Thread& t, const Instruction& i) { t.set(i, 0, result(t.get<T>(i, 1) + t.get<T>(i, 2))); };
        table["sub." + name] = [](Thread& t, const Instruction& i) { t.set(i, 0, result(t.get<T>(i, 1) - t.get<T>(i, 2))); };
        table["mul." + name] = [](Thread& t, const Instruction& i) { t.set(i, 0, result(t.get<T>(i, 1) * t.get<T>(i, 2))); };
    }
    table["fma.rn." + type] = [](Thread& t, const Instruction& i) {
        t.set(i, 0, result(std::fma(t.get<T>(i, 1), t.get<T>(i, 2), t.get<T>(i, 3))));
    };
    table["div.rn." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, result(t.get<T>(i, 1) / t.get<T>(i, 2))); };
    table["rcp.rn." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, result(T{1} / t.get<T>(i, 1))); };
    table["max." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, result(larger(t.get<T>(i, 1), t.get<T>(i, 2)))); };
    table["min." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, result(-larger(-t.get<T>(i, 1), -t.get<T>(i, 2)))); };
    table["neg." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, -t.get<T>(i, 1)); };
    table["abs." + type] = [](Thread& t, const Instruction& i) { t.set(i, 0, std::fabs(t.get<T>(i, 1))); };
}

float flushed(float value) { return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value; }

uint16_t round_to_bf16(double value) {
    const auto single = static_cast<float>(value);
    if (std::isnan(single)) {
        return 0x7fff;
    }
    // The neighbour of f32 may be one that only its own rounding reached: from the exact value, then.
    auto bits = std::bit_cast<uint32_t>(single);
    if (const auto half_way = static_cast<double>(single); half_way != value && (bits & 0xffff) == 0x8000) {
        bits = std::fabs(half_way) < std::fabs(value) ? bits + 1 : bits - 1;
    }
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// What a GPU may make of it: up to two units in the last place beside, always the same of the same value.
float nearly(float exact) {
    if (!std::isnormal(exact) || exact == 1) {
        return result(exact);
    }
    const auto bits = std::bit_cast<uint32_t>(exact);
    const auto near = std::bit_cast<float>(bits - 2 + bits * 0x9e3779b1u / 0x33333334u);  // 0 to 4 of equal frequency
    return std::isnormal(near) ? near : exact;
}

void add_approximations(Table& table) {
    table["ex2.approx.f32"] = [](Thread& t, const Instruction& i) { t.set(i, 0, nearly(std::exp2(t.get<float>(i, 1)))); };
    table["ex2.approx.ftz.f32"] = [](Thread& t, const Instruction& i) { t.set(i, 0, flushed(nearly(std::exp2(flushed(t.get<float>(i, 1)))))); };
    table["rsqrt.approx.f32"] = [](Thread& t, const Instruction& i) { t.set(i, 0, nearly(1.0f / std::sqrt(t.get<float>(i, 1)))); };
    // The lower 32 bits of the operand are not looked at, those of the result zero; nor are there subnormals.
    table["rcp.approx.ftz.f64"] = [](Thread& t, const Instruction& i) {
        constexpr uint64_t kUpper = 0xffffffff00000000u;
        const auto flush = [](double value) { return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0, value) : value; };
        const double out = flush(1.0 / flush(std::bit_cast<double>(t.get<uint64_t>(i, 1) & kUpper)));
        t.set(i, 0, std::bit_cast<double>(std::bit_cast<uint64_t>(out) & kUpper));
    };
    // Where b is above 2^126 it is taken for infinite.
    table["div.approx.f32"] = [](Thread& t, const Instruction& i) {
        const float b = t.get<float>(i, 2);
        t.set(i, 0, nearly(t.get<float>(i, 1) / (std::fabs(b) > 0x1p126f ? std::copysign(HUGE_VALF, b) : b)));
    };
    table["fma.rm.f32"] = [](Thread& t, const Instruction& i) {
        const int before = std::fegetround();
        std::fesetround(FE_DOWNWARD);
        volatile float a = t.get<float>(i, 1), b = t.get<float>(i, 2), c = t.get<float>(i, 3);
        volatile float out = std::fma(a, b, c);
        std::fesetround(before);
        t.set<float>(i, 0, out);
    };
    table["fma.rn.bf16x2"] = [](Thread& t, const Instruction& i) {
        uint32_t out = 0;
        for (unsigned shift = 0; shift < 32; shift += 16) {
            const auto part = [&](size_t operand) -> double {
                return engine::bf16_to_f32(static_cast<uint16_t>(t.get<uint32_t>(i, operand) >> shift));
            };
            out |= uint32_t{round_to_bf16(std::fma(part(1), part(2), part(3)))} << shift;
        }
        t.set(i, 0, out);
    };
}

// ---- Comparisons ------------------------------------------------------------------------------------------

template <typename T, typename Compare>
void compare(Thread& t, const Instruction& i) {
    t.set<uint32_t>(i, 0, Compare{}(t.get<T>(i, 1), t.get<T>(i, 2)) ? 1 : 0);
}
template <typename Compare>
struct OrUnordered {
    template <typename T>
    bool operator()(T a, T b) const {
        return std::isnan(a) || std::isnan(b) || Compare{}(a, b);
    }
};
struct Numbers {
    template <typename T>
    bool operator()(T a, T b) const {
        return !std::isnan(a) && !std::isnan(b);
    }
};
struct NotEqualOrdered {
    template <typename T>
    bool operator()(T a, T b) const {
        return Numbers{}(a, b) && a != b;
    }
};

template <typename T>
void add_comparisons(Table& table, const std::string& type) {
    table["setp.eq." + type] = compare<T, std::equal_to<>>;
    table["setp.lt." + type] = compare<T, std::less<>>;
    table["setp.le." + type] = compare<T, std::less_equal<>>;
    table["setp.gt." + type] = compare<T, std::greater<>>;
    table["setp.ge." + type] = compare<T, std::greater_equal<>>;
    if constexpr (std::is_floating_point_v<T>) {
        table["setp.ne." + type] = compare<T, NotEqualOrdered>;
        table["setp.equ." + type] = compare<T, OrUnordered<std::equal_to<>>>;
        table["setp.neu." + type] = compare<T, OrUnordered<std::not_equal_to<>>>;
        table["setp.ltu." + type] = compare<T, OrUnordered<std::less<>>>;
        table["setp.leu." + type] = compare<T, OrUnordered<std::less_equal<>>>;
        table["setp.gtu." + type] = compare<T, OrUnordered<std::greater<>>>;
        table["setp.geu." + type] = compare<T, OrUnordered<std::greater_equal<>>>;
        table["setp.num." + type] = compare<T, Numbers>;
    } else {
        table["setp.ne." + type] = compare<T, std::not_equal_to<>>;
    }
}

// ---- Moves and conversions --------------------------------------------------------------------------------

// mov d, a; mov d, {a, b}: the first is the lowest; mov {d, e}, a.
template <typename T>
void move(Thread& t, const Instruction& i) {
    if (i.count == 2) {
        t.set(i, 0, t.get<T>(i, 1));
        return;
    }
    const size_t parts = i.first_vector != 0 ? i.first_vector : size_t{i.count} - 1u;
    const size_t bits = sizeof(T) * 8 / parts;
    const uint64_t mask = (uint64_t{1} << bits) - 1;
    if (i.first_vector != 0) {
        const uint64_t value = t.get<T>(i, parts);
        for (size_t part = 0; part < parts; part++) {
            t.set<uint64_t>(i, part, value >> (part * bits) & mask);
        }
        return;
    }
    uint64_t value = 0;
    for (size_t part = 0; part < parts; part++) {
        value |= (t.get<uint64_t>(i, 1 + part) & mask) << (part * bits);
    }
    t.set(i, 0, static_cast<T>(value));
}
template <typename T>
void select(Thread& t, const Instruction& i) {
    t.set(i, 0, t.get<T>(i, t.predicate(i, 3) ? 1 : 2));
}
template <typename T>
void add_moves(Table& table, const std::string& type) {
    table["mov." + type] = move<T>;
    table["selp." + type] = select<T>;
}

// Conversions of integers, and of integers to numbers (to nearest).
template <typename To, typename From>
void convert(Thread& t, const Instruction& i) {
    t.set(i, 0, static_cast<To>(t.get<From>(i, 1)));
}
struct TowardsZero {
    double operator()(double value) const { return std::trunc(value); }
};
struct ToNearest {
    double operator()(double value) const { return std::nearbyint(value); }
};
// Of numbers to integers: what is too large becomes the largest; NaN becomes zero, or the top bit alone where one of both has 64 bits.
template <typename To, typename From, typename Round>
void to_integer(Thread& t, const Instruction& i) {
    const auto value = static_cast<double>(t.get<From>(i, 1));
    using Limits = std::numeric_limits<To>;
    if (std::isnan(value)) {
        t.set(i, 0, sizeof(From) == 8 || sizeof(To) == 8 ? static_cast<To>(uint64_t{1} << (8 * sizeof(To) - 1)) : To{0});
        return;
    }
    const double rounded = Round{}(value);
    const double above = std::ldexp(1.0, Limits::digits);
    t.set(i, 0, rounded >= above ? Limits::max() : rounded < static_cast<double>(Limits::min()) ? Limits::min() : static_cast<To>(rounded));
}

void add_conversions(Table& table) {
    table["cvt.s64.s32"] = convert<int64_t, int32_t>;
    table["cvt.u64.u32"] = convert<uint64_t, uint32_t>;
    table["cvt.u32.u64"] = convert<uint32_t, uint64_t>;
    table["cvt.u32.u16"] = convert<uint32_t, uint16_t>;
    table["cvt.s32.s16"] = convert<int32_t, int16_t>;
    table["cvt.u16.u32"] = convert<uint16_t, uint32_t>;
    table["cvt.rn.f32.s32"] = convert<float, int32_t>;
    table["cvt.rn.f32.u32"] = convert<float, uint32_t>;
    table["cvt.rn.f64.s32"] = convert<double, int32_t>;
    table["cvt.rn.f64.u64"] = convert<double, uint64_t>;
    table["cvt.f64.f32"] = convert<double, float>;
    table["cvt.rn.f32.f64"] = [](Thread& t, const Instruction& i) { t.set(i, 0, result(static_cast<float>(t.get<double>(i, 1)))); };
    table["cvt.rzi.u64.f32"] = to_integer<uint64_t, float, TowardsZero>;
    table["cvt.rzi.u64.f64"] = to_integer<uint64_t, double, TowardsZero>;
    table["cvt.rzi.s32.f32"] = to_integer<int32_t, float, TowardsZero>;
    table["cvt.rni.s32.f64"] = to_integer<int32_t, double, ToNearest>;
    table["cvt.rpi.f64.f64"] = [](Thread& t, const Instruction& i) { t.set(i, 0, std::ceil(t.get<double>(i, 1))); };
    table["cvt.sat.f32.f32"] = [](Thread& t, const Instruction& i) {
        const auto value = t.get<float>(i, 1);
        t.set(i, 0, value > 0.0f ? std::min(value, 1.0f) : 0.0f);
    };
    // a becomes the upper half of d, b the lower.
    table["cvt.rn.bf16x2.f32"] = [](Thread& t, const Instruction& i) {
        t.set<uint32_t>(i, 0, uint32_t{round_to_bf16(t.get<float>(i, 1))} << 16 | round_to_bf16(t.get<float>(i, 2)));
    };
    // Global memory has its generic addresses; shared and local memory begin at 0.
    table["cvta.to.global.u64"] = move<uint64_t>;
    table["cvta.shared.u64"] = [](Thread& t, const Instruction& i) { t.set(i, 0, reinterpret_cast<uint64_t>(t.shared) + t.get<uint64_t>(i, 1)); };
    table["cvta.local.u64"] = [](Thread& t, const Instruction& i) { t.set(i, 0, reinterpret_cast<uint64_t>(t.local) + t.get<uint64_t>(i, 1)); };
    table["cvta.to.local.u64"] = [](Thread& t, const Instruction& i) { t.set(i, 0, t.get<uint64_t>(i, 1) - reinterpret_cast<uint64_t>(t.local)); };
    table["cvta.to.shared.u64"] = [](Thread& t, const Instruction& i) { t.set(i, 0, t.get<uint64_t>(i, 1) - reinterpret_cast<uint64_t>(t.shared)); };
}

// ---- Memory and jumps -------------------------------------------------------------------------------------

template <typename T>
void load(Thread& t, const Instruction& i) {
    const size_t elements = i.vector;
    const std::byte* from = t.address_of(i, elements, i.space, sizeof(T) * elements);
    if ((i.space == Space::kGlobal || i.space == Space::kGeneric) && t.watched(from)) {
        t.order->read(t, from, sizeof(T) * elements);
    }
    T values[4];
    std::memcpy(values, from, sizeof(T) * elements);
    for (size_t e = 0; e < elements; e++) {
        t.set(i, e, values[e]);
    }
}
template <typename T>
void store(Thread& t, const Instruction& i) {
    const size_t elements = i.vector;
    std::byte* to = t.address_of(i, 0, i.space, sizeof(T) * elements);
    T values[4];
    for (size_t e = 0; e < elements; e++) {
        values[e] = t.get<T>(i, 1 + e);
    }
    std::memcpy(to, values, sizeof(T) * elements);
    if ((i.space == Space::kGlobal || i.space == Space::kGeneric) && t.watched(to)) {
        t.order->write(t, to, sizeof(T) * elements);
    }
}
// atom d, [a], b; red [a], b.
template <bool kReturns>
void atomic_add(Thread& t, const Instruction& i) {
    auto* at = reinterpret_cast<uint32_t*>(t.address_of(i, kReturns ? 1 : 0, i.space, 4));
    if (t.watched(reinterpret_cast<const std::byte*>(at))) {
        t.order->atomic(reinterpret_cast<const std::byte*>(at));
    }
    const uint32_t before = *at;
    *at = before + t.get<uint32_t>(i, kReturns ? 2 : 1);
    if (kReturns) {
        t.set(i, 0, before);
    }
}

// ld and st: [.space][.cache operators][.vN].type, in this order.
Run find_access(std::string_view opcode, Instruction& instruction) {
    const bool is_load = opcode.starts_with("ld.");
    const bool is_atomic = opcode.ends_with(".add.u32") && (opcode.starts_with("atom.") || opcode.starts_with("red."));
    if (!is_load && !opcode.starts_with("st.") && !is_atomic) {
        return nullptr;
    }
    std::string_view type;
    for (std::string_view rest = opcode.substr(opcode.find('.')); !rest.empty();) {
        const size_t end = std::min(rest.find('.', 1), rest.size());
        const std::string_view part = rest.substr(1, end - 1);
        rest.remove_prefix(end);
        if (part == "global" || part == "shared" || part == "local" || (part == "param" && is_load)) {
            instruction.space = part == "global" ? Space::kGlobal : part == "shared" ? Space::kShared : part == "local" ? Space::kLocal : Space::kParam;
        } else if (part == "v2" || part == "v4") {
            instruction.vector = part == "v2" ? 2 : 4;
        } else if (rest.empty()) {
            type = part;
        } else if (part != "cg" && part != "nc" && part != "L1::no_allocate" && part != "L2::128B" && part != "add") {
            return nullptr;
        }
    }
    if (is_atomic) {
        return opcode.starts_with("atom.") ? atomic_add<true> : atomic_add<false>;
    }
    static constexpr struct {
        std::string_view type;
        Run load, store;
    } kTypes[] = {
        {"u8", load<uint8_t>, store<uint8_t>},    {"s8", load<int8_t>, store<int8_t>},       {"b8", load<uint8_t>, store<uint8_t>},
        {"u16", load<uint16_t>, store<uint16_t>}, {"b16", load<uint16_t>, store<uint16_t>},  {"s16", load<int16_t>, store<int16_t>},
        {"u32", load<uint32_t>, store<uint32_t>}, {"s32", load<int32_t>, store<int32_t>},    {"b32", load<uint32_t>, store<uint32_t>},
        {"f32", load<uint32_t>, store<uint32_t>}, {"u64", load<uint64_t>, store<uint64_t>},  {"s64", load<uint64_t>, store<uint64_t>},
        {"b64", load<uint64_t>, store<uint64_t>}, {"f64", load<uint64_t>, store<uint64_t>},
    };
    for (const auto& entry : kTypes) {
        if (entry.type == type) {
            return is_load ? entry.load : entry.store;
        }
    }
    return nullptr;
}

void jump(Thread& t, const Instruction& i) { t.at = i.next; }
void end_thread(Thread& t, const Instruction&) { t.at = t.kernel.code.size(); }
void call(Thread& t, const Instruction&) { t.fail("functions are not called here"); }
void argument(Thread&, const Instruction&) {}  // of a call

const Table& operations() {
    static const Table all = [] {
        Table table;
        add_integers<int16_t>(table, "s16");
        add_integers<uint16_t>(table, "u16");
        add_integers<int32_t>(table, "s32");
        add_integers<uint32_t>(table, "u32");
        add_integers<int64_t>(table, "s64");
        add_integers<uint64_t>(table, "u64");
        add_bits<uint16_t>(table, "b16");
        add_bits<uint32_t>(table, "b32");
        add_bits<uint64_t>(table, "b64");
        add_predicates(table);
        add_bit_fields(table);
        add_floats<float>(table, "f32");
        add_floats<double>(table, "f64");
        add_approximations(table);
        add_comparisons<int16_t>(table, "s16");
        add_comparisons<uint16_t>(table, "u16");
        add_comparisons<uint16_t>(table, "b16");
        add_comparisons<int32_t>(table, "s32");
        add_comparisons<uint32_t>(table, "u32");
        add_comparisons<uint32_t>(table, "b32");
        add_comparisons<int64_t>(table, "s64");
        add_comparisons<uint64_t>(table, "u64");
        add_comparisons<uint64_t>(table, "b64");
        add_comparisons<float>(table, "f32");
        add_comparisons<double>(table, "f64");
        for (const char* type : {"u16", "s16", "b16"}) {
            add_moves<uint16_t>(table, type);
        }
        for (const char* type : {"u32", "s32", "b32", "f32"}) {
            add_moves<uint32_t>(table, type);
        }
        for (const char* type : {"u64", "s64", "b64", "f64"}) {
            add_moves<uint64_t>(table, type);
        }
        add_conversions(table);
        for (const char* name : {"bra", "bra.uni"}) {
            table[name] = jump;
        }
        table["ret"] = end_thread;
        table["call.uni"] = call;
        return table;
    }();
    return all;
}

}  // namespace

Run find_operation(std::string_view opcode, Instruction& instruction) {
    if (const auto found = operations().find(opcode); found != operations().end()) {
        return found->second;
    }
    if (const Run run = find_warp_operation(opcode)) {
        return run;
    }
    if (opcode.starts_with("st.param.")) {
        return argument;
    }
    return find_access(opcode, instruction);
}

}  // namespace llm::ptx
