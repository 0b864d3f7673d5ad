// JSON of strangers: from clients, and what a model has written.
#pragma once

#include <cstdint>
#include <string_view>

#include "shared/json.hpp"

namespace llm::engine {

// Values of JSON are copied, written and freed by recursion: too deep a one would end the process.
inline constexpr int kMaxJsonDepth = 1000;
// A member of an object is looked for among those before it: at most so many comparisons in a text, which are
// one object of 20,000 members, or many thousand of hundreds. Of long names each 64 bytes count.
inline constexpr uint64_t kMaxMemberComparisons = 200'000'000;

// What of `text` is more than is read: "brackets nested more than 1000 deep", "objects of too many members";
// null: nothing. O(text).
const char* json_excess(std::string_view text);

// The value of `text`; discarded when it is malformed or json_excess() says something.
nlohmann::ordered_json parse_bounded_json(std::string_view text);

}  // namespace llm::engine
