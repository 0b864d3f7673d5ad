#include "ngx_module/core/text/request_id.hpp"

namespace llm::core {
namespace {

bool is_id_byte(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == ':' || c == '-';
}

}  // namespace

bool valid_request_id(std::string_view id) {
    if (id.empty() || id.size() > kMaxRequestId) {
        return false;
    }
    for (char c : id) {
        if (!is_id_byte(c)) {
            return false;
        }
    }
    return true;
}

std::array<char, 32> format_request_id(std::span<const uint8_t, 16> random) {
    constexpr char kDigits[] = "0123456789abcdef";
    std::array<char, 32> text;
    for (size_t i = 0; i < random.size(); ++i) {
        text[2 * i] = kDigits[random[i] >> 4];
        text[2 * i + 1] = kDigits[random[i] & 15];
    }
    return text;
}

}  // namespace llm::core
