// Numbers between two bounds, digit by digit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "engine_worker/grammar/grammar.hpp"

namespace llm::engine {

// The longest numbers that are written: what programs can read into 64 bits.
inline constexpr int kMaxIntegerDigits = 18;
inline constexpr int kMaxFractionDigits = 17;

// A decimal number without exponent.
struct Decimal {
    bool negative = false;
    std::string integer;   // digits without leading zeros; "0" for zero
    std::string fraction;  // digits without trailing zeros, may be empty
};

struct Bound {
    Decimal value;
    bool exclusive = false;
};

// Multiples of unit * 10^-digits: of 0.25 it is 25 and 2.
struct Multiple {
    uint32_t unit = 1;  // up to kMaxUnit
    size_t digits = 0;  // behind the point, up to kMaxMultipleDigits

    static constexpr uint32_t kMaxUnit = 1000;
    static constexpr size_t kMaxMultipleDigits = 6;

    // Whether a number of which `rest` is what its digits without the point leave when divided by `unit`,
    // `fraction` of them behind the point, is one.
    bool holds(uint32_t rest, size_t fraction) const;
};

// Nothing when `value` is not above 0 or has more digits than a Multiple.
std::optional<Multiple> to_multiple(const Decimal& value);
bool is_multiple(const Decimal& value, const Multiple& of);

// The decimal that stands for `value`, or nothing when it is not finite.
std::optional<Decimal> to_decimal(double value);
Decimal to_decimal(int64_t value);
bool less(const Decimal& a, const Decimal& b);

// A path from `from` to `to` for every number within the bounds (absent: none), with a fraction only if
// asked for, and only multiples of `of` (absent: any; with a unit above 1 and no upper bound they have
// up to ten digits before the point, or one more than the lower bound). No exponent, no leading zeros, no
// "-0". Dead ends are left to GrammarBuilder::finish().
void add_decimal_range(GrammarBuilder& builder, int32_t from, const std::optional<Bound>& low,
                       const std::optional<Bound>& high, bool fraction, int32_t to,
                       const std::optional<Multiple>& of = std::nullopt);

}  // namespace llm::engine
