#include "engine_worker/server/bounded_json.hpp"

#include <vector>

namespace llm::engine {

const char* json_excess(std::string_view text) {
    static_assert(kMaxJsonDepth == 1000);  // as the message says
    constexpr int64_t kArray = -1;
    constexpr size_t kBytesAtOnce = 64;
    std::vector<int64_t> members;  // read in every open object
    uint64_t comparisons = 0;
    size_t string = 0;  // where the last one begins, and its bytes
    size_t length = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            if (c == '\\') {
                ++i;
            } else if (c == '"') {
                in_string = false;
                length = i - string;
            }
        } else if (c == '"') {
            in_string = true;
            string = i + 1;
        } else if (c == '{' || c == '[') {
            if (members.size() == kMaxJsonDepth) {
                return "brackets nested more than 1000 deep";
            }
            members.push_back(c == '{' ? 0 : kArray);
        } else if ((c == '}' || c == ']') && !members.empty()) {
            members.pop_back();
        } else if (c == ':' && !members.empty() && members.back() != kArray) {
            comparisons += static_cast<uint64_t>(members.back()++) * (1 + length / kBytesAtOnce);
            if (comparisons > kMaxMemberComparisons) {
                return "objects of too many members";
            }
        }
    }
    return nullptr;
}

nlohmann::ordered_json parse_bounded_json(std::string_view text) {
    using Json = nlohmann::ordered_json;
    return json_excess(text) != nullptr ? Json(Json::value_t::discarded) : Json::parse(text, nullptr, false);
}

}  // namespace llm::engine
