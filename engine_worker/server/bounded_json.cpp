#include "engine_worker/server/bounded_json.hpp"

#include <vector>

namespace llm::engine {

const char* json_excess(std::string_view text) {
    static_assert(kMaxJsonDepth == 1000);  // as the message says
    constexpr int64_t kArray = -1;
    std::vector<int64_t> commas;  // read in every open object
    uint64_t comparisons = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            i += c == '\\' ? 1 : 0;
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (commas.size() == kMaxJsonDepth) {
                return "brackets nested more than 1000 deep";
            }
            commas.push_back(c == '{' ? 0 : kArray);
        } else if ((c == '}' || c == ']') && !commas.empty()) {
            commas.pop_back();
        } else if (c == ',' && !commas.empty() && commas.back() != kArray) {
            comparisons += static_cast<uint64_t>(++commas.back());
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
