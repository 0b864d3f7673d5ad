#include "ngx_module/core/text/bearer.hpp"

#include <cstring>

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

// Visible ASCII: 0x21..0x7e. Eight bytes at a time, by the known tests for "some byte is less" and "more" (S.
// E. Anderson, "Bit Twiddling Hacks").
bool is_token(std::string_view text) {
    constexpr uint64_t kOnes = 0x0101010101010101;
    if (text.empty() || text.size() > kMaxBearerToken) {
        return false;
    }
    uint64_t bad = 0;
    const auto look = [&bad](uint64_t word) {
        bad |= ((word - 0x21 * kOnes) & ~word) | (word + kOnes) | word;
    };
    for (; text.size() >= sizeof(uint64_t); text.remove_prefix(sizeof(uint64_t))) {
        uint64_t word;
        std::memcpy(&word, text.data(), sizeof(word));
        look(word);
    }
    for (char c : text) {
        look(kOnes * static_cast<uint8_t>(c));
    }
    return (bad & 0x80 * kOnes) == 0;
}

// Both grammars have the same words; they differ in the scheme's spelling and in whether a tab separates.
Bearer parse(std::string_view value, bool exact) {
    constexpr std::string_view kUsual = "Bearer ";
    if (value.starts_with(kUsual) && is_token(value.substr(kUsual.size()))) {
        return {BearerStatus::ok, value.substr(kUsual.size())};
    }
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

bool is_bearer_token(std::string_view text) {
    return is_token(text);
}

Bearer parse_bearer(std::string_view header_value) {
    return parse(header_value, false);
}

Bearer parse_bearer_exact(std::string_view header_value) {
    return parse(header_value, true);
}

}  // namespace llm::core
