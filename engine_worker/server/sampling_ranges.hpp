// What sampling parameters may be, in requests and in generation_config.json alike.
#pragma once

#include <cstdint>

namespace llm::engine {

struct NumberRange {
    double low, high;
    bool above = false;  // `low` itself is not allowed

    // False for NaN, and, above 0, for what is 0 as a float (1e-60).
    bool contains(double value) const {
        return value >= low && value <= high && (!above || static_cast<float>(value) > low);
    }
};

inline constexpr NumberRange kTemperature{0, 2};
inline constexpr NumberRange kTopP{0, 1, true};
inline constexpr NumberRange kMinP{0, 1};
inline constexpr NumberRange kRepetitionPenalty{0, 10, true};
inline constexpr NumberRange kPenalty{-2, 2};  // presence, frequency
inline constexpr int64_t kLeastTopK = -1;      // -1 and 0 = all

}  // namespace llm::engine
