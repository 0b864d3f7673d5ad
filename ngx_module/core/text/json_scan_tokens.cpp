// The common case, fast: tokens that lie whole in the piece, without escapes. Whatever is not of that kind is
// left to the careful code in json_scan.cpp, which goes on at the same byte, so nothing is decided here that
// is not decided there.
#include <array>
#include <bit>
#include <cstring>

#include "ngx_module/core/text/json_scan.hpp"
#include "ngx_module/core/text/json_scan_inline.hpp"
#include "ngx_module/core/text/string_skip.hpp"
#include "ngx_module/core/text/words.hpp"

namespace llm::core {
namespace {

constexpr int kLongestName = 32;    // shorter strings are looked at in one vector or two
constexpr int kLongestNumber = 24;  // digits and point

// Order of JsonScan::Key.
constexpr std::array<std::string_view, 14> kKeyNames = {"",
                                                        "model",
                                                        "stream",
                                                        "priority",
                                                        "max_tokens",
                                                        "max_completion_tokens",
                                                        "max_output_tokens",
                                                        "n",
                                                        "routing-mode",
                                                        "stream_options",
                                                        "include_usage",
                                                        "prompt",
                                                        "input",
                                                        "token_ids"};

bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

// The first byte at or behind `p` that is no white space, at most `limit`.
inline const char* skip_space(const char* p, const char* limit) {
    while (static_cast<uint8_t>(*p) <= ' ' && is_space(*p) && ++p < limit) {
    }
    return p;
}

// Size of the string whose bytes begin at `p`, when it is shorter than kLongestName and of ASCII without
// escapes; else a negative number. Reads kLongestName bytes.
inline int short_text(const char* p) {
    int size = 0;
#if defined(__x86_64__)
    // Compared with sign, bytes beyond ASCII are negative: one comparison finds them and the control bytes.
    const auto end_mask = [](const char* at) {
        const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
        const __m128i odd = _mm_or_si128(
            _mm_cmpeq_epi8(x, _mm_set1_epi8('"')),
            _mm_or_si128(_mm_cmpeq_epi8(x, _mm_set1_epi8('\\')), _mm_cmplt_epi8(x, _mm_set1_epi8(0x20))));
        return static_cast<uint32_t>(_mm_movemask_epi8(odd));
    };
    constexpr int kVector = kLongestName / 2;
    uint32_t mask = end_mask(p);
    if (mask == 0) {
        mask = end_mask(p + kVector);
        if (mask == 0) {
            return -1;
        }
        size = kVector;
    }
    size += std::countr_zero(mask);
#else
    while (!ends_text(p[size]) && static_cast<uint8_t>(p[size]) < 0x80) {
        if (++size == kLongestName) {
            return -1;
        }
    }
#endif
    return p[size] == '"' ? size : -1;
}

}  // namespace

std::string_view JsonScan::error_key() const {
    return error_key_ == Key::include_usage ? "stream_options.include_usage"
                                            : kKeyNames[static_cast<size_t>(error_key_)];
}

// A key ends at `p`, decoded: `name`. Sets what its value will mean.
void JsonScan::name_key(const char* p, std::string_view name) {
    const char* const text = name.data();
    Key key = Key::none;
    if (depth_ != 1) {
        if (name.size() == 13 && is8(text, "include_") && is8(text + 5, "de_usage")) {
            key = Key::include_usage;
        }
    } else {
        // whole words are compared: first and last bytes may overlap
        switch (name.size()) {
            case 1:
                key = *text == 'n' ? Key::n : key;
                break;
            case 5:
                key = is4(text, "mode") && text[4] == 'l'   ? Key::model
                      : is4(text, "inpu") && text[4] == 't' ? Key::input
                                                            : key;
                break;
            case 6:
                key = is4(text, "stre") && is2(text + 4, "am")   ? Key::stream
                      : is4(text, "prom") && is2(text + 4, "pt") ? Key::prompt
                                                                 : key;
                break;
            case 8:
                key = is8(text, "priority") ? Key::priority : key;
                break;
            case 9:
                key = is8(text, "token_id") && text[8] == 's' ? Key::token_ids : key;
                break;
            case 10:
                key = is8(text, "max_toke") && is2(text + 8, "ns") ? Key::max_tokens : key;
                break;
            case 12:
                key = is8(text, "routing-") && is4(text + 8, "mode") ? Key::routing_mode : key;
                break;
            case 14:
                key = is8(text, "stream_o") && is8(text + 6, "_options") ? Key::stream_options : key;
                break;
            case 17:
                key = is8(text, "max_outp") && is8(text + 8, "ut_token") && text[16] == 's'
                          ? Key::max_output_tokens
                          : key;
                break;
            case 21:
                key = is8(text, "max_comp") && is8(text + 8, "letion_t") && is8(text + 13, "n_tokens")
                          ? Key::max_completion_tokens
                          : key;
                break;
            default:
                return;
        }
    }
    key_ = key;
    if (key_ == Key::none || key_ >= Key::prompt) {
        return;
    }
    const uint32_t bit = 1u << static_cast<uint32_t>(key_);
    if (seen_ & bit) {
        fail(ErrorKind::duplicate, "a control key occurs twice", p, key_);
    }
    seen_ |= bit;
}

// From token to token. Every p < limit has kAhead bytes behind it that may be read, enough for a short
// member; strings may reach to `end`. Returns where the careful code must go on, with state_ set for it:
// possibly `p` itself. White space is looked for where a token was not found, as mostly there is one blank or
// none. What may come next is a place in this function rather than a value of state_.
const char* JsonScan::whole_tokens(const char* p, const char* end, const char* limit) {
    switch (state_) {
        case State::object_first:
        case State::key:
            goto key;
        case State::array_first:
        case State::value:
            goto value;
        case State::after:
            goto after;
        default:
            return p;  // the beginning, the end, or a colon apart from its key
    }

key:  // state_ says which of the two
    if (p >= limit) {
        return p;
    }
    if (*p != '"') {
        p = skip_space(p, limit);
        if (p >= limit || *p != '"') {
            return p;
        }
    }
    {
        const int size = short_text(p + 1);
        const char* const colon = p + 1 + size + 1;
        if (size < 0 || *colon != ':') {
            return p;
        }
        if (depth_ == 1 || (in_stream_options_ && depth_ == 2)) {
            (depth_ == 1 ? keys_.object_empty : keys_.stream_options_empty) = false;
            name_key(colon, {p + 1, static_cast<size_t>(size)});
            if (failed()) {
                return colon;
            }
        }
        p = colon + (colon[1] == ' ' ? 2 : 1);
        state_ = State::value;
    }

value:  // state_ says whether it is an array's first
    if (static_cast<uint8_t>(*p) <= ' ') {
        p = skip_space(p, limit);
        if (p >= limit) {
            return p;
        }
    }
    if (*p == '"') {
        const State before = state_;
        state_ = State::after;
        const char* const behind = whole_text(p, end);
        if (behind == nullptr) {
            state_ = before;
            return p;
        }
        p = behind;
        if (state_ != State::after) {
            return p;  // in the string yet, or failed
        }
    } else if (*p == '{' || *p == '[') {
        if (key_ != Key::none || depth_ == kMaxDepth) {
            return p;
        }
        enter(*p == '{');
        ++p;
        if (in_object_) {
            goto key;
        }
        if (p >= limit) {
            return p;
        }
        goto value;
    } else {
        const char* const behind = whole_number(p);
        if (behind == nullptr) {
            return p;
        }
        p = behind;
        if (failed()) {
            return p;
        }
        state_ = State::after;
    }

after:
    while (p < limit) {
        const char c = *p;
        if (c == ',') {
            p += p[1] == ' ' ? 2 : 1;
            if (in_object_) {
                state_ = State::key;
                goto key;
            }
            state_ = State::value;
            if (p >= limit) {
                return p;
            }
            goto value;
        }
        if (c == '}' || c == ']') {
            end_container(p, c == '}');
            ++p;
            if (state_ != State::after) {
                return p;  // done, or failed
            }
        } else if (is_space(c)) {
            ++p;
        } else {
            return p;
        }
    }
    return p;
}

// The string value that begins with the quote at `p`. nullptr when it is not of the common kind.
inline const char* JsonScan::whole_text(const char* p, const char* end) {
    const char* const text = p + 1;
    auto size = static_cast<size_t>(short_text(text));
    if (static_cast<int>(size) < 0) {
        const SkippedText run = skip_text(text, end);
        if (!run.valid || run.stop == end || *run.stop != '"') {
            return begin_long_text(p, run.stop, end);
        }
        size = static_cast<size_t>(run.stop - text);
    }
    if (key_ != Key::none) {
        if (key_ == Key::model && size <= ControlKeys::kMaxModel) {
            keep_model(p, size);
        } else if (key_ < Key::prompt) {
            return nullptr;
        }
        key_ = Key::none;
    }
    if (depth_ == 2) {
        count_prompt();
    }
    const bool is_data = *text == 'd' && size >= 5 && std::memcmp(text, "data:", 5) == 0;
    keys_.text_bytes += is_data ? 0 : size;
    return text + size + 1;
}

// A string value that does not end at `stop`, where a first look at it ended. Its end, if the piece has it.
const char* JsonScan::begin_long_text(const char* p, const char* stop, const char* end) {
    begin_text(p);
    if (failed()) {
        return p;
    }
    if (stop != p + 1) {
        append(p + 1, static_cast<size_t>(stop - (p + 1)));
    }
    return string_bytes(stop, end);
}

void JsonScan::keep_model(const char* p, size_t size) {
    keys_.model_span = {offset(p), offset(p) + size + 2};
    keys_.has_model = true;
    keys_.model_size = static_cast<uint8_t>(size);
    std::memcpy(keys_.model_bytes, p + 1, size);
}

// The value of a control key, when it is an integer of usual size in [p, end).
bool JsonScan::count(const char* p, const char* end) {
    if (key_ < Key::priority || key_ > Key::n || end - p > 9 ||
        (*end != ',' && *end != '}' && !is_space(*end))) {
        return false;
    }
    negative_ = false;
    integer_ = true;
    magnitude_ = 0;
    if (Span* span = span_of(key_)) {
        span->begin = offset(p);
    }
    while (p < end) {
        magnitude_ = magnitude_ * 10 + static_cast<uint64_t>(*p++ - '0');
    }
    end_number(p);
    return true;
}

// A number that means nothing to us, or an integer in an array of tokens. nullptr when it has a sign or an
// exponent, or is long.
inline const char* JsonScan::whole_number(const char* p) {
    const char* const begin = p;
    const char* const most = p + kLongestNumber;
    while (is_digit(*p) && p < most) {
        ++p;
    }
    if (p == begin || (*begin == '0' && p - begin > 1)) {
        return nullptr;
    }
    if (key_ != Key::none) {
        return count(begin, p) ? p : nullptr;
    }
    const bool integer = *p != '.';
    if (!integer) {
        const char* const dot = p++;
        while (is_digit(*p) && p < most) {
            ++p;
        }
        if (p == dot + 1) {
            return nullptr;
        }
    }
    if (*p != ',' && *p != ']' && *p != '}' && !is_space(*p)) {
        return nullptr;
    }
    if (integer && in_tokens_ && depth_ <= 3 && !in_object_) {
        ++keys_.prompt_tokens_given;
    }
    return p;
}

}  // namespace llm::core
