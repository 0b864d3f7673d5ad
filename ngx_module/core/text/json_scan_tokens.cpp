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

constexpr size_t kShort = 32;  // strings up to this size are looked at in one vector or two
constexpr size_t kManyDigits = 16;

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

[[gnu::noinline]] bool is_bracket_or_space(char c) {
    return c == ']' || is_space(c);
}

// Whether a number that nothing is wrong with ends in front of `c`.
inline bool ends_number(char c) {
    return c == ',' || c == '}' || is_bracket_or_space(c);
}

// Whether a string is an encoded file rather than text.
inline bool is_data(const char* text, size_t size) {
    return *text == 'd' && size >= 5 && is4(text, "data") && text[4] == ':';
}

// The first byte at or behind `p` that is no white space, at most `limit`. Not inline: there is none mostly.
[[gnu::noinline]] const char* skip_space(const char* p, const char* limit) {
    while (is_space(*p) && ++p < limit) {
    }
    return p;
}

#if LLM_MASKS
// The same as ordinary_bytes(), of which the first 16 are known to be ordinary.
[[gnu::noinline]] size_t ordinary_behind16(const char* p) {
    static_assert(kShort == 32);
    return 16 + static_cast<uint32_t>(std::countr_zero(special_mask16(p + 16) | 1u << 16));
}
#endif

// How many of the kShort bytes at `p` are of ASCII and end no string: up to the first other one.
inline size_t ordinary_bytes(const char* p) {
#if LLM_MASKS
    const uint32_t special = special_mask16(p);
    if (special != 0) [[likely]] {
        return static_cast<uint32_t>(std::countr_zero(special));
    }
    return ordinary_behind16(p);
#else
    size_t size = 0;
    while (size < kShort && !ends_text(p[size]) && static_cast<uint8_t>(p[size]) < 0x80) {
        ++size;
    }
    return size;
#endif
}

// How many of the eight bytes at `p` are digits: up to the first other one.
inline size_t digits8(const char* p) {
    uint64_t bytes;
    std::memcpy(&bytes, p, sizeof(bytes));
    if constexpr (std::endian::native == std::endian::big) {
        bytes = __builtin_bswap64(bytes);
    }
    bytes ^= 0x3030303030303030;  // digits become 0 to 9
    // The sum has the high bit where a byte is greater; carries spoil only what lies behind the first such
    // byte.
    const uint64_t others = ((bytes + 0x7676767676767676) | bytes) & 0x8080808080808080;
    return others == 0 ? 8 : static_cast<uint32_t>(std::countr_zero(others)) / 8;
}

// Behind the digits that begin at `p`, if there are less than kManyDigits.
inline const char* skip_digits(const char* p) {
    static_assert(kManyDigits == 16);
    const size_t size = digits8(p);
    return size < 8 ? p + size : p + 8 + digits8(p + 8);
}

// The same for what are mostly not more than two digits.
inline const char* skip_few_digits(const char* p) {
    return !is_digit(p[0]) ? p : !is_digit(p[1]) ? p + 1 : !is_digit(p[2]) ? p + 2 : skip_digits(p);
}

}  // namespace

std::string_view JsonScan::error_key() const {
    return error_key_ == Key::include_usage ? "stream_options.include_usage"
                                            : kKeyNames[static_cast<size_t>(error_key_)];
}

// The control key of the top level with this name. Whole words are compared: first and last bytes may
// overlap.
[[gnu::always_inline]] inline JsonScan::Key JsonScan::top_key(const char* name, size_t size) {
    switch (size) {
        case 1:
            return *name == 'n' ? Key::n : Key::none;
        case 5:
            return is4(name, "mode") && name[4] == 'l'   ? Key::model
                   : is4(name, "inpu") && name[4] == 't' ? Key::input
                                                         : Key::none;
        case 6:
            return is4(name, "stre") && is2(name + 4, "am")   ? Key::stream
                   : is4(name, "prom") && is2(name + 4, "pt") ? Key::prompt
                                                              : Key::none;
        case 8:
            return is8(name, "priority") ? Key::priority : Key::none;
        case 9:
            return is8(name, "token_id") && name[8] == 's' ? Key::token_ids : Key::none;
        case 10:
            return is8(name, "max_toke") && is2(name + 8, "ns") ? Key::max_tokens : Key::none;
        case 12:
            return is8(name, "routing-") && is4(name + 8, "mode") ? Key::routing_mode : Key::none;
        case 14:
            return is8(name, "stream_o") && is8(name + 6, "_options") ? Key::stream_options : Key::none;
        case 17:
            return is8(name, "max_outp") && is8(name + 8, "ut_token") && name[16] == 's'
                       ? Key::max_output_tokens
                       : Key::none;
        case 21:
            return is8(name, "max_comp") && is8(name + 8, "letion_t") && is8(name + 13, "n_tokens")
                       ? Key::max_completion_tokens
                       : Key::none;
        default:
            return Key::none;
    }
}

// The meaning of a key of the top level or of stream_options.
inline JsonScan::Key JsonScan::named_key(const char* name, size_t size) const {
    if (place_ == Place::top) {
        return top_key(name, size);
    }
    return size == 13 && is8(name, "include_") && is8(name + 5, "de_usage") ? Key::include_usage : Key::none;
}

// The value that comes next is that of this key, which ends at `p`. False: it must not be there.
inline bool JsonScan::set_key(const char* p, Key key) {
    key_ = key;
    if (key == Key::none || key >= Key::prompt) {
        return true;
    }
    const uint32_t bit = 1u << static_cast<uint32_t>(key);
    if (seen_ & bit) {
        fail(ErrorKind::duplicate, "a control key occurs twice", p, key);
        return false;
    }
    seen_ |= bit;
    return true;
}

// A key of the top level or of stream_options ends at `p`, decoded.
void JsonScan::name_key(const char* p, const char* name, size_t size) {
    set_key(p, named_key(name, size));
}

// Most keys of most bodies are these. They are compared before their end is looked for: what comes behind
// them need not wait for that. Of the key at `p`, where its closing quote is; nullptr: it is another.
inline const char* usual_message_key(const char* p) {
    return is8(p, "\"content") && is2(p + 8, "\":") ? p + 8
           : is4(p, "\"rol") && is4(p + 3, "le\":") ? p + 5
                                                    : nullptr;
}
inline const char* JsonScan::usual_top_key(const char* p, Key& key) {
    if (is8(p, "\"model\":")) {
        key = Key::model;
        return p + 6;
    }
    if (is8(p, "\"message") && is4(p + 7, "es\":")) {
        return p + 9;
    }
    if (is8(p, "\"stream\"") && p[8] == ':') {
        key = Key::stream;
        return p + 7;
    }
    if (is8(p, "\"max_tok") && is8(p + 5, "tokens\":")) {
        key = Key::max_tokens;
        return p + 11;
    }
    if (is8(p, "\"tempera") && is8(p + 6, "rature\":")) {
        return p + 12;
    }
    return nullptr;
}

// From token to token. Behind every p < limit are kAhead bytes that may be read, enough for a short member
// and what parts it from the one before; strings may reach to `end`. Returns where the careful code must go
// on, with state_ set for it: possibly `p` itself. White space is looked for where a token was not found, as
// mostly there is one blank or none. What may come next is a place in this function rather than a value of
// state_.
const char* JsonScan::whole_tokens(const char* p, const char* end, const char* limit) {
    switch (state_) {
        case State::start:
            if (*p != '{') {
                return p;
            }
            enter(Place::top, State::object_first);
            ++p;
            goto key;
        case State::object_first:
        case State::key:
            goto key;
        case State::array_first:
        case State::value:
            goto value;
        case State::after:
            goto after;
        default:
            return p;  // the end, or a colon apart from its key
    }

key:  // state_ says which of the two
    if (*p != '"') [[unlikely]] {
        p = skip_space(p, limit);
        if (p >= limit || *p != '"') {
            return p;
        }
    }
    {
        const bool matters = place_ >= Place::options;
        Key key = Key::none;
        const char* close = place_ == Place::top ? usual_top_key(p, key)
                            : !matters           ? usual_message_key(p)
                                                 : nullptr;
        if (close == nullptr) {
            const size_t size = ordinary_bytes(p + 1);
            close = p + 1 + size;
            if (!is2(close, "\":")) [[unlikely]] {
                return p;
            }
            key = matters ? named_key(p + 1, size) : key;
        }
        if (matters && !set_key(close + 1, key)) {
            return close + 1;
        }
        p = close + (close[2] == ' ' ? 3 : 2);
        state_ = State::value;
    }

value:  // state_ says whether it is an array's first
    if (*p == '"') {
        size_t size = ordinary_bytes(p + 1);
        if (p[1 + size] != '"') [[unlikely]] {
            // from the beginning: that need not wait for the size
            const SkippedText run = skip_text(p + 1, end);
            if (run.stop == end || *run.stop != '"') {
                p = long_text(p, run.stop, end);
                if (state_ != State::after) {
                    return p;  // in the string yet, or failed
                }
                goto after;
            }
            size = static_cast<size_t>(run.stop - (p + 1));
        }
        if (key_ == Key::none && place_ != Place::prompts) {
            keys_.text_bytes += is_data(p + 1, size) ? 0 : size;
        } else if (key_ == Key::model && size <= kShort) {
            keep_model(p, size);
        } else {
            control_text(p, size);
            if (failed()) {
                return p;
            }
        }
        p += size + 2;
    } else if (is_digit(*p)) {
    number:
        const char* const behind = whole_number(p, limit);
        if (behind == p) {
            return p;
        }
        p = behind;
    } else if (*p == '{' || *p == '[') {
        if (key_ != Key::none || depth_ == kMaxDepth || place_ <= Place::prompts) [[unlikely]] {
            return p;
        }
        const bool object = *p++ == '{';
        enter(object ? Place::object : Place::array, object ? State::object_first : State::array_first);
        if (p >= limit) {
            return p;
        }
        if (object) {
            goto key;
        }
        goto value;
    } else if (*p == '-' && is_digit(p[1])) {
        goto number;
    } else {
        const char* const behind = skip_space(p, limit);
        if (behind == p || behind >= limit) {
            return behind;
        }
        p = behind;
        goto value;
    }

after:
    while (p < limit) {
        const char c = *p;
        if (c == ',') {
            p += p[1] == ' ' ? 2 : 1;
            if (place_ >= Place::object) [[likely]] {
                state_ = State::key;
                goto key;
            }
            state_ = State::value;
            goto value;
        }
        if ((c == '}' && place_ == Place::object) || (c == ']' && place_ < Place::object)) {
            leave();
        } else if (c == '}' || c == ']') {
            end_container(p, c == '}');
            if (state_ != State::after) {
                return p + 1;  // done, or failed
            }
        } else {
            const char* const behind = skip_space(p, limit);
            if (behind == p) {
                break;
            }
            p = behind;
            continue;
        }
        ++p;
    }
    state_ = State::after;
    return p;
}

// The string that begins with the quote at `p` and does not end at `stop`, where a first look at it ended.
// Its end, if the piece has it.
const char* JsonScan::long_text(const char* p, const char* stop, const char* end) {
    const auto size = static_cast<size_t>(stop - (p + 1));
    begin_text(p);
    if (failed()) {
        return p;
    }
    if (key_ == Key::none && size >= kDataUri.size()) {
        count_text_ = !is_data(p + 1, size);
        data_match_ = kNoData;
        keys_.text_bytes += count_text_ ? size : 0;
        state_ = State::text;
        return stop == end ? end : text_bytes(stop, end);
    }
    if (size != 0) {
        append(p + 1, size);
    }
    return string_bytes(stop, end);
}

// A short value of `model`, as control_text().
inline void JsonScan::keep_model(const char* p, size_t size) {
    static_assert(kShort <= ControlKeys::kMaxModel);
    keys_.model_span = {offset(p), offset(p) + size + 2};
    keys_.has_model = true;
    keys_.model_size = static_cast<uint8_t>(size);
    std::memcpy(keys_.model_bytes, p + 1, kShort);
    keys_.text_bytes += is_data(p + 1, size) ? 0 : size;
    key_ = Key::none;
}

// A string of `size` bytes behind the quote at `p`, without escapes, that is the value of a key that matters
// or an element of `prompt`.
void JsonScan::control_text(const char* p, size_t size) {
    begin_text(p);
    if (failed()) {
        return;
    }
    if (size != 0) {
        append(p + 1, size);
    }
    end_string(p + 1 + size + 1);
}

// The number at `p`, which begins with a digit or with a minus and a digit, when it has no exponent and is
// not long: behind it, else `p`.
inline const char* JsonScan::whole_number(const char* p, const char* limit) {
    if (place_ <= Place::tokens) {
        return token_numbers(p, limit);
    }
    const char* const digits = *p == '-' ? p + 1 : p;
    const char* const point = skip_few_digits(digits + 1);
    if (*digits == '0' && point != digits + 1) {
        return p;
    }
    const char* behind = point;
    if (*point == '.') {
        behind = skip_digits(point + 1);
        if (behind == point + 1) {
            return p;
        }
    }
    if (!ends_number(*behind)) {
        return p;
    }
    return key_ == Key::none || (behind == point && digits == p && count(p, point)) ? behind : p;
}

// The integer [p, end) as the value of a control key, when it is a count of usual size.
bool JsonScan::count(const char* p, const char* end) {
    if (key_ < Key::max_tokens || key_ > Key::n || end - p > 9) {
        return false;
    }
    uint32_t number = 0;
    for (; p != end; ++p) {
        number = number * 10 + static_cast<uint8_t>(*p) - '0';
    }
    (key_ == Key::max_tokens              ? keys_.max_tokens
     : key_ == Key::max_completion_tokens ? keys_.max_completion_tokens
     : key_ == Key::max_output_tokens     ? keys_.max_output_tokens
                                          : keys_.n) = number;
    key_ = Key::none;
    return true;
}

// The integers of an array of tokens that begin at `p`, one behind another: behind the last that has neither
// a sign nor more than eight digits, else `p`.
const char* JsonScan::token_numbers(const char* p, const char* limit) {
    const char* behind = p;
    for (;;) {
        const size_t size = digits8(p);
        if (size == 0 || (*p == '0' && size != 1) || !ends_number(p[size])) {
            return behind;
        }
        ++keys_.prompt_tokens_given;
        behind = p + size;
        if (*behind != ',' || behind + 2 >= limit) {
            return behind;
        }
        p = behind + (behind[1] == ' ' ? 2 : 1);
    }
}

}  // namespace llm::core
