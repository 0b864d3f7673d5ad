#include "ngx_module/core/text/bearer.hpp"

#include "ngx_module/core/text/ascii.hpp"

namespace llm::core {
namespace {

std::string_view trim(std::string_view text) {
    skip_blanks(text);
    while (!text.empty() && is_blank(text.back())) {
        text.remove_suffix(1);
    }
    return text;
}

bool is_token(std::string_view text) {
    if (text.empty() || text.size() > kMaxBearerToken) {
        return false;
    }
    for (char c : text) {
        if (c < 0x21 ||
            c > 0x7e) {  // a byte above 0x7f is negative or large, depending on the platform: out in both
            return false;
        }
    }
    return true;
}

// Both grammars have the same words; they differ in the scheme's spelling and in whether a tab separates.
Bearer parse(std::string_view value, bool exact) {
    value = trim(value);
    if (value.empty()) {
        return {BearerStatus::missing, {}};
    }
    size_t gap = 0;
    while (gap < value.size() && !is_blank(value[gap])) {
        ++gap;
    }
    const std::string_view scheme = value.substr(0, gap);
    const bool known = exact ? scheme == "Bearer" : equal_ignoring_case(scheme, "bearer");
    while (gap < value.size() && (value[gap] == ' ' || (exact && value[gap] == '\t'))) {
        ++gap;
    }
    const std::string_view token = value.substr(gap);
    if (!known || !is_token(token)) {
        return {BearerStatus::malformed, {}};
    }
    return {BearerStatus::ok, token};
}

}  // namespace

Bearer parse_bearer(std::string_view header_value) {
    return parse(header_value, false);
}

Bearer parse_bearer_exact(std::string_view header_value) {
    return parse(header_value, true);
}

}  // namespace llm::core
