// JSON strings on the hot path: one per token and client.
#include "engine_worker/server/json_text.hpp"

#include <array>
#include <charconv>
#include <cmath>

#include "shared/hex.hpp"

namespace llm::engine {
namespace {

constexpr double kNoChance = -9999.0;  // OpenAI's value for a probability of nothing
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Bytes of the well-formed UTF-8 sequence that starts `text` (Unicode table 3-7); 0 = none does.
size_t utf8_length(std::string_view text) {
    const auto at = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
    const auto tail = [&](size_t i) { return (at(i) & 0xc0U) == 0x80U; };
    const unsigned lead = at(0);
    if (lead < 0x80) {
        return 1;
    }
    if (lead >= 0xc2 && lead <= 0xdf) {
        return tail(1) ? 2 : 0;
    }
    if (lead >= 0xe0 && lead <= 0xef) {
        const bool second = lead == 0xe0 ? at(1) >= 0xa0 : lead == 0xed ? at(1) <= 0x9f : true;
        return second && tail(1) && tail(2) ? 3 : 0;
    }
    if (lead >= 0xf0 && lead <= 0xf4) {
        const bool second = lead == 0xf0 ? at(1) >= 0x90 : lead == 0xf4 ? at(1) <= 0x8f : true;
        return second && tail(1) && tail(2) && tail(3) ? 4 : 0;
    }
    return 0;
}

}  // namespace

void append_json_string(std::string& out, std::string_view text) {
    out += '"';
    while (!text.empty()) {
        const char c = text.front();
        size_t used = 1;
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (c == '\n') {
            out += "\\n";
        } else if (static_cast<unsigned char>(c) < 0x20) {
            out += "\\u00";
            out += hex_digit(static_cast<unsigned char>(c) >> 4);
            out += hex_digit(static_cast<unsigned char>(c));
        } else if (const size_t length = utf8_length(text); length == 0) {
            out += kReplacement;
        } else {
            out += text.substr(0, length);
            used = length;
        }
        text.remove_prefix(used);
    }
    out += '"';
}

void append_json_number(std::string& out, double value) {
    std::array<char, 32> text;
    if (!std::isfinite(value) || value < kNoChance) {
        value = kNoChance;
    }
    out.append(text.data(),
               std::to_chars(text.data(), text.data() + text.size(), static_cast<float>(value)).ptr);
}

}  // namespace llm::engine
