#include "engine_worker/tokenizer/split_regex.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cctype>
#include <stdexcept>

#include "engine_worker/tokenizer/unicode.hpp"

namespace llm::engine {
namespace {

[[noreturn]] void refuse(std::string_view pattern, const std::string& why) {
    throw std::runtime_error("regular expression \"" + std::string(pattern) + "\": " + why);
}

std::string pcre2_message(int code) {
    PCRE2_UCHAR text[256];
    pcre2_get_error_message(code, text, sizeof text);
    return reinterpret_cast<const char*>(text);
}

// Members of \w and of Oniguruma's \h (a hexadecimal digit) as they stand inside a class. Outside of one Oniguruma
// looks code points below 256 up in Latin-1's table, where superscripts and fractions are of words, too.
constexpr std::string_view kWordMembers = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
constexpr std::string_view kLatinWordMembers = R"(\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
constexpr std::string_view kHexMembers = "0-9A-Fa-f";

}  // namespace

RegexScratch::RegexScratch() : data_(pcre2_match_data_create(1, nullptr)) {
    if (!data_)
        throw std::bad_alloc();
}

RegexScratch::~RegexScratch() {
    pcre2_match_data_free(data_);
}

std::string to_pcre2_syntax(std::string_view pattern) {
    std::string out;
    out.reserve(pattern.size() + 64);
    int in_class = 0;             // how many classes are open
    bool at_bracket = false;      // the character just read opened or closed one
    bool after_interval = false;  // the characters just read are {n}, {n,} or {n,m}
    for (size_t i = 0; i < pattern.size(); ++i) {
        const char c = pattern[i];
        const bool was_interval = after_interval, was_bracket = at_bracket;
        after_interval = at_bracket = false;
        if (c == '\\' && i + 1 < pattern.size()) {
            const char escaped = pattern[++i];
            switch (escaped) {
                case 's':
                    out += "\\p{White_Space}";
                    break;
                case 'S':
                    out += "\\P{White_Space}";
                    break;
                case 'w':
                    if (in_class)
                        out.append(kWordMembers);
                    else
                        out.append("[").append(kWordMembers).append(kLatinWordMembers).append("]");
                    break;
                case 'h':
                    out.append(in_class ? "" : "[").append(kHexMembers).append(in_class ? "" : "]");
                    break;
                case 'W':
                case 'H':
                    if (in_class)
                        refuse(pattern,
                               std::string("\\") + escaped + " inside a character class is not supported");
                    out.append("[^").append(escaped == 'W' ? kWordMembers : kHexMembers);
                    out.append(escaped == 'W' ? kLatinWordMembers : "").append("]");
                    break;
                case 'u': {
                    const std::string_view digits = pattern.substr(i + 1, 4);
                    bool hex = digits.size() == 4;
                    for (char d : digits)
                        hex = hex && std::isxdigit(static_cast<unsigned char>(d));
                    if (!hex)
                        refuse(pattern, "\\u needs four hexadecimal digits");
                    out.append("\\x{").append(digits).append("}");
                    i += 4;
                    break;
                }
                default:
                    out += '\\';
                    out += escaped;
            }
        } else if (in_class > 0) {
            if (c == '&' && pattern.substr(i, 2) == "&&")
                refuse(pattern, "intersection of character classes (&&) is not supported");
            if (pattern.substr(i, 2) == "[^")
                refuse(pattern, "a negated character class inside a character class is not supported");
            if (pattern.substr(i, 2) == "[:") {  // copied whole, so that its ] does not end the class
                const size_t end = pattern.find(":]", i);
                if (end == std::string_view::npos)
                    refuse(pattern, "missing :]");
                out.append(pattern, i, end + 2 - i);
                i = end + 1;
            } else if (c == '[') {  // its members are the outer one's, too
                ++in_class;
                at_bracket = true;
            } else if (c == ']') {
                if (--in_class == 0)
                    out += c;
                at_bracket = true;
            } else {
                // Beside a bracket that goes it would join what stands on both sides.
                const std::string_view next = pattern.substr(i + 1, 1);
                if (c == '-' && (was_bracket || next == "[" || next == "]"))
                    out += '\\';
                out += c;
            }
        } else if (c == '[') {
            in_class = 1;
            out += c;
            if (i + 1 < pattern.size() && pattern[i + 1] == '^')
                out += pattern[++i];
            if (i + 1 < pattern.size() && pattern[i + 1] == ']')  // a literal ] may come first
                out.append("\\]"), ++i;
        } else {
            if (c == '+' && was_interval)
                refuse(pattern, "a quantifier after {n,m} is not supported");
            after_interval = c == '}' && out.size() > 1 &&
                             (std::isdigit(static_cast<unsigned char>(out.back())) || out.back() == ',') &&
                             out.rfind('{') != std::string::npos && out[out.rfind('{') - 1] != 'x';
            out += c;
        }
    }
    return out;
}

SplitRegex::SplitRegex(std::string_view pattern) {
    const std::string translated = to_pcre2_syntax(pattern);
    int error = 0;
    PCRE2_SIZE where = 0;
    std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
        pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
    if (!context)
        throw std::bad_alloc();
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context.get(), 100);
    // Ruby's ^ and $ are line anchors always, hence MULTILINE. NEVER_BACKSLASH_C: \C could split a character.
    pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                     PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                                     &error, &where, context.get());
    if (!code)
        refuse(pattern, pcre2_message(error));
    code_.reset(code, [](const pcre2_code* c) { pcre2_code_free(const_cast<pcre2_code*>(c)); });
    jit_ = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
}

SplitRegex SplitRegex::literal(std::string_view text) {
    SplitRegex regex;
    regex.literal_ = text;
    return regex;
}

bool SplitRegex::find(std::string_view text, size_t from, RegexScratch& scratch, Match& match) const {
    if (!code_) {
        const size_t at = literal_.empty() ? std::string_view::npos : text.find(literal_, from);
        match = {at, at + literal_.size()};
        return at != std::string_view::npos;
    }
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    // The text is valid UTF-8 (encode() sees to it): a check per match would make the walk quadratic.
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (jit_)
        rc = pcre2_jit_match(code_.get(), subject, text.size(), from, 0, scratch.get(), nullptr);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)  // the interpreter keeps its backtracking on the heap
        rc = pcre2_match(code_.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         scratch.get(), nullptr);
    if (rc == PCRE2_ERROR_NOMATCH)
        return false;
    if (rc < 0)
        throw std::runtime_error("pre-tokenizer pattern failed on this text: " + pcre2_message(rc));
    const PCRE2_SIZE* ovector = pcre2_get_ovector_pointer(scratch.get());
    match = {ovector[0], ovector[1]};
    // \K in a lookahead can put the start behind the end; nothing sensible follows from such a pattern.
    if (match.begin > match.end || match.begin < from)
        throw std::runtime_error("pre-tokenizer pattern moves the start of its match");
    return true;
}

bool SplitRegex::Walk::next(Match& match) {
    while (from_ <= text_.size() && regex_.find(text_, from_, scratch_, match)) {
        if (match.begin == match.end && match.end == last_end_) {
            from_ +=
                from_ < text_.size() ? unicode::lead_length(static_cast<unsigned char>(text_[from_])) : 1;
            continue;
        }
        from_ = last_end_ = match.end;
        return true;
    }
    return false;
}

}  // namespace llm::engine
