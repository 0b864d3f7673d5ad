// JSON of strangers: from clients, and what a model has written.
#pragma once

#include <string_view>

#include "shared/json.hpp"

namespace llm::engine {

// Values of JSON are copied, written and freed by recursion: too deep a one would end the process.
inline constexpr int kMaxJsonDepth = 1000;

// Whether brackets in `text`, those in strings apart, are nested deeper than kMaxJsonDepth. O(text).
bool nested_too_deep(std::string_view text);

// The value of `text`; discarded when it is malformed or nested too deep. O(text).
nlohmann::ordered_json parse_bounded_json(std::string_view text);

}  // namespace llm::engine
