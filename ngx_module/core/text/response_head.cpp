#include "ngx_module/core/text/response_head.hpp"

#include <bit>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace llm::core {
namespace {

constexpr size_t kBlock = 16;

bool is_name_byte(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

#if defined(__SSE2__)
__m128i load(const char* at) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
}

// Bit i: byte i is below 0x20.
uint32_t controls(__m128i bytes) {
    const __m128i most = _mm_set1_epi8(0x1f);
    return static_cast<uint32_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(bytes, most), bytes)));
}

uint32_t colons(__m128i bytes) {
    return static_cast<uint32_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(':'))));
}
#endif

// The first control byte at or behind `at`; `end` when there is none.
const char* find_control(const char* at, const char* end, [[maybe_unused]] const char* readable_end) {
#if defined(__SSE2__)
    for (; at < end && static_cast<size_t>(readable_end - at) >= kBlock; at += kBlock) {
        if (const uint32_t found = controls(load(at)); found != 0) {
            at += std::countr_zero(found);
            return at < end ? at : end;
        }
    }
#endif
    while (at < end && static_cast<uint8_t>(*at) >= 0x20) {
        ++at;
    }
    return at < end ? at : end;
}

// The first colon within the longest name from `at`; nullptr when there is none.
const char* find_colon(const char* at, const char* end, [[maybe_unused]] const char* readable_end) {
    const char* const stop =
        static_cast<size_t>(end - at) < HeaderName::kCapacity ? end : at + HeaderName::kCapacity;
#if defined(__SSE2__)
    for (; at < stop && static_cast<size_t>(readable_end - at) >= kBlock; at += kBlock) {
        if (const uint32_t found = colons(load(at)); found != 0) {
            at += std::countr_zero(found);
            return at < stop ? at : nullptr;
        }
    }
#endif
    while (at < stop && *at != ':') {
        ++at;
    }
    return at < stop ? at : nullptr;
}

std::string_view between(const char* begin, const char* end) {
    return {begin, static_cast<size_t>(end - begin)};
}

bool is_line_end(const char* at, const char* end) {
    return end - at >= 2 && at[0] == '\r' && at[1] == '\n';
}

// "HTTP/1.1 200 OK". Returns the start of the next line, nullptr when it is not ordinary.
const char* parse_status(const char* at, const char* end, const char* readable_end, ResponseHead& head) {
    constexpr std::string_view kVersion = "HTTP/1.1 ";
    if (static_cast<size_t>(end - at) < kVersion.size() + 3 ||
        std::memcmp(at, kVersion.data(), kVersion.size()) != 0) {
        return nullptr;
    }
    const char* const digits = at + kVersion.size();
    uint32_t status = 0;
    for (size_t i = 0; i < 3; ++i) {
        if (digits[i] < '0' || digits[i] > '9') {
            return nullptr;
        }
        status = 10 * status + static_cast<uint32_t>(digits[i] - '0');
    }
    if (status < 200 || status > 599) {
        return nullptr;
    }
    const char* const line_end = find_control(digits + 3, end, readable_end);
    if (!is_line_end(line_end, end) || (line_end > digits + 3 && digits[3] != ' ')) {
        return nullptr;
    }
    head.status = status;
    head.status_line = between(digits, line_end);
    return line_end + 2;
}

}  // namespace

bool parse_response_head(const char* begin, const char* end, const char* readable_end, ResponseHead& head) {
    const char* at = parse_status(begin, end, readable_end, head);
    if (at == nullptr) {
        return false;
    }
    size_t count = 0;
    while (!is_line_end(at, end)) {
        const char* const colon = find_colon(at, end, readable_end);
        if (colon == nullptr || colon == at || count == ResponseHead::kMaxFields) {
            return false;
        }
        const char* value = colon + 1;
        while (value < end && *value == ' ') {
            ++value;
        }
        const char* const line_end = find_control(value, end, readable_end);
        if (!is_line_end(line_end, end)) {
            return false;
        }
        const char* value_end = line_end;
        while (value_end > value && value_end[-1] == ' ') {
            --value_end;
        }
        head.fields[count++] = {between(at, colon), between(value, value_end)};
        at = line_end + 2;
    }
    head.count = count;
    head.end = at + 2;
    return true;
}

HeaderName* HeaderNames::find(std::string_view name, [[maybe_unused]] size_t readable) {
    const size_t length = name.size();
    if (length == 0 || length >= HeaderName::kCapacity) {
        return nullptr;
    }
    const auto* bytes = reinterpret_cast<const uint8_t*>(name.data());
    size_t index = length * 29 + bytes[0] + size_t{bytes[length - 1]} * 5 + size_t{bytes[length / 2]} * 17;
    for (size_t probe = 0; probe < kProbes; ++probe, ++index) {
        HeaderName& place = places_[index % kPlaces];
        if (place.length == 0) {
            return &place;
        }
        if (place.length != length) {
            continue;
        }
#if defined(__SSE2__)
        if (length <= kBlock && readable >= kBlock) {
            const auto same =
                static_cast<uint32_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(load(name.data()), load(place.text))));
            if ((~same & ((1U << length) - 1)) == 0) {
                return &place;
            }
            continue;
        }
#endif
        if (std::memcmp(place.text, name.data(), length) == 0) {
            return &place;
        }
    }
    return nullptr;
}

bool HeaderNames::fill(HeaderName& place, std::string_view name) {
    uint64_t hash = 0;
    HeaderName entry{};
    for (size_t i = 0; i < name.size(); ++i) {
        const char c = name[i];
        if (!is_name_byte(c)) {
            return false;
        }
        entry.text[i] = c;
        entry.lower[i] = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
        hash = hash * 31 + static_cast<uint8_t>(entry.lower[i]);
    }
    entry.hash = hash;
    entry.length = static_cast<uint32_t>(name.size());
    place = entry;
    return true;
}

}  // namespace llm::core
