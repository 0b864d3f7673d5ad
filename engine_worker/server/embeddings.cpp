// Answers of POST /v1/embeddings.
#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <span>

#include "engine_worker/server/api_response.hpp"
#include "engine_worker/server/json_text.hpp"

namespace llm::engine {
namespace {

// Little-endian float32 in base64 (RFC 4648), as OpenAI sends and its clients expect.
void append_base64(std::string& out, std::span<const float> values) {
    static_assert(std::endian::native == std::endian::little);
    constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
    const size_t n = values.size_bytes();
    for (size_t i = 0; i < n; i += 3) {
        const uint32_t group = static_cast<uint32_t>(bytes[i]) << 16 |
                               (i + 1 < n ? static_cast<uint32_t>(bytes[i + 1]) << 8 : 0U) |
                               (i + 2 < n ? static_cast<uint32_t>(bytes[i + 2]) : 0U);
        out += kDigits[group >> 18];
        out += kDigits[group >> 12 & 63];
        out += i + 1 < n ? kDigits[group >> 6 & 63] : '=';
        out += i + 2 < n ? kDigits[group & 63] : '=';
    }
}

void append_numbers(std::string& out, std::span<const float> values) {
    std::array<char, 32> text;
    for (size_t i = 0; i < values.size(); ++i) {
        out += i == 0 ? "" : ",";
        out.append(text.data(), std::to_chars(text.data(), text.data() + text.size(), values[i]).ptr);
    }
}

// The first `n` numbers, of length 1 again.
std::vector<float> shortened(const std::vector<float>& values, size_t n) {
    std::vector<float> out(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(n));
    double square = 0;
    for (const float value : out) {
        square += static_cast<double>(value) * static_cast<double>(value);
    }
    for (float& value : out) {
        value = static_cast<float>(square > 0 ? static_cast<double>(value) / std::sqrt(square) : 0.0);
    }
    return out;
}

}  // namespace

std::string CompletionAnswer::embeddings_json() const {
    std::string out = "{\"object\":\"list\",\"data\":[";
    for (size_t i = 0; i < choices_.size(); ++i) {
        const std::vector<float>& whole = choices_[i].embedding;
        const auto n = static_cast<size_t>(shape_.dimensions);
        const std::vector<float> values = n > 0 && n < whole.size() ? shortened(whole, n) : whole;
        out += i == 0 ? "" : ",";
        out += "{\"object\":\"embedding\",\"index\":" + std::to_string(i) + ",\"embedding\":";
        out += shape_.base64 ? '"' : '[';
        shape_.base64 ? append_base64(out, values) : append_numbers(out, values);
        out += shape_.base64 ? '"' : ']';
        out += '}';
    }
    out += "],\"model\":";
    append_json_string(out, shape_.model);
    out += ",\"usage\":{\"prompt_tokens\":" + std::to_string(prompt_tokens_);
    out += ",\"total_tokens\":" + std::to_string(prompt_tokens_) + "}}";
    return out;
}

}  // namespace llm::engine
