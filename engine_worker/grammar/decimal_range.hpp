// Numbers between two bounds, digit by digit.
#pragma once

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

// The decimal that stands for `value`, or nothing when it is not finite.
std::optional<Decimal> to_decimal(double value);
Decimal to_decimal(int64_t value);
bool less(const Decimal& a, const Decimal& b);

// A path from `from` to `to` for every number within the bounds (absent: none), with a fraction only if
// asked for. No exponent, no leading zeros, no "-0". Dead ends are left to GrammarBuilder::finish().
void add_decimal_range(GrammarBuilder& builder, int32_t from, const std::optional<Bound>& low,
                       const std::optional<Bound>& high, bool fraction, int32_t to);

}  // namespace llm::engine
