#include "engine_worker/tokenizer/jinja/lexer.hpp"

#include <unicode/uchar.h>
#include <algorithm>
#include <cctype>
#include <stdexcept>

#include "engine_worker/tokenizer/jinja/python_text.hpp"
#include "engine_worker/tokenizer/unicode.hpp"

namespace llm::engine::jinja {

void syntax_error(int line, const std::string& what) {
    throw std::runtime_error("line " + std::to_string(line) + ": " + what);
}

namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

class Lexer {
  public:
    explicit Lexer(std::string_view source) {
        // Line ends become \n; one at the very end is not part of the text.
        source_.reserve(source.size());
        for (size_t i = 0; i < source.size(); ++i) {
            if (source[i] != '\r') {
                source_ += source[i];
                continue;
            }
            source_ += '\n';
            if (i + 1 < source.size() && source[i + 1] == '\n')
                ++i;
        }
        if (!source_.empty() && source_.back() == '\n')
            source_.pop_back();
    }

    std::vector<Token> run() {
        while (at_ < source_.size())
            text();
        add(TokenKind::kEnd, "");
        return std::move(tokens_);
    }

  private:
    void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
    bool looking_at(std::string_view what, size_t from) const {
        return std::string_view(source_).substr(from, what.size()) == what;
    }
    bool looking_at(std::string_view what) const { return looking_at(what, at_); }
    void advance(size_t to) {
        line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                             source_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
        at_ = to;
    }
    size_t skip_space(size_t from) const {
        while (from < source_.size()) {
            size_t next = from;
            if (!is_python_space(unicode::next_code_point(source_, next)))
                break;
            from = next;
        }
        return from;
    }
    size_t find_tag(size_t from) const {
        while ((from = source_.find('{', from)) != std::string::npos) {
            if (looking_at("{%", from) || looking_at("{{", from) || looking_at("{#", from))
                return from;
            ++from;
        }
        return source_.size();
    }

    // The text before a tag, less what the tag's sign or lstrip_blocks takes from it.
    void data(size_t end, char sign, bool variable) {
        std::string_view text = std::string_view(source_).substr(at_, end - at_);
        if (sign == '-') {
            text = right_strip(text);
        } else if (sign != '+' && !variable) {
            const size_t newline = text.rfind('\n');
            const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
            if ((begin > 0 || line_starting_) && skip_space(at_ + begin) >= end)
                text = text.substr(0, begin);
        }
        if (!text.empty())
            add(TokenKind::kData, std::string(text));
        advance(end);
    }

    static char sign_at(std::string_view text, size_t at) {
        return at < text.size() && (text[at] == '-' || text[at] == '+') ? text[at] : ' ';
    }

    // Moves past `close`, with what a "-" before it or trim_blocks take after it.
    void end_tag(size_t close, size_t length, bool minus, bool trim) {
        size_t end = close + length;
        if (minus)
            end = skip_space(end);
        else if (trim && end < source_.size() && source_[end] == '\n')
            ++end;
        line_starting_ = source_[end - 1] == '\n';
        advance(end);
    }

    void text() {
        const size_t tag = find_tag(at_);
        if (tag == source_.size()) {
            add(TokenKind::kData, source_.substr(at_));
            at_ = tag;
            return;
        }
        const char sign = sign_at(source_, tag + 2);
        const char type = source_[tag + 1];
        data(tag, sign, type == '{');
        const size_t inside = tag + (sign == ' ' ? 2 : 3);
        if (type == '#')
            return comment(inside);
        if (type == '%' && raw(inside))
            return;
        add(type == '%' ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, "");
        advance(inside);
        tag_body(type == '%');
    }

    void comment(size_t from) {
        const size_t close = source_.find("#}", from);
        if (close == std::string::npos)
            syntax_error(line_, "missing end of comment tag");
        const char before = close > from ? source_[close - 1] : ' ';
        end_tag(close, 2, before == '-', before != '+');
    }

    // {% raw %} … {% endraw %}: everything between is text.
    bool raw(size_t from) {
        size_t at = skip_space(from);
        if (!looking_at("raw", at))
            return false;
        at = skip_space(at + 3);
        const bool minus = looking_at("-%}", at);
        if (!minus && !looking_at("%}", at))
            return false;
        end_tag(at, minus ? 3 : 2, minus, false);
        for (size_t open = at_; (open = source_.find("{%", open)) != std::string::npos; ++open) {
            const char sign = sign_at(source_, open + 2);
            size_t end = skip_space(open + (sign == ' ' ? 2 : 3));
            if (!looking_at("endraw", end))
                continue;
            end = skip_space(end + 6);
            const char mark = looking_at("-%}", end) ? '-' : looking_at("+%}", end) ? '+' : ' ';
            if (mark == ' ' && !looking_at("%}", end))
                continue;
            line_starting_ = false;
            data(open, sign, false);
            end_tag(end, mark == ' ' ? 2 : 3, mark == '-', mark == ' ');
            return true;
        }
        syntax_error(line_, "missing end of raw directive");
    }

    void tag_body(bool block) {
        std::string open;  // brackets that wait for their partner
        const std::string_view close = block ? "%}" : "}}";
        while (true) {
            if (at_ >= source_.size())
                syntax_error(line_, "unexpected end of template inside a tag");
            if (open.empty()) {
                const bool minus = source_[at_] == '-' && looking_at(close, at_ + 1);
                const bool plus = block && source_[at_] == '+' && looking_at(close, at_ + 1);
                if (minus || plus || looking_at(close)) {
                    add(block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, "");
                    return end_tag(at_, minus || plus ? 3 : 2, minus, block && !plus);
                }
            }
            token(open);
        }
    }

    void token(std::string& open) {
        const char c = source_[at_];
        size_t next = at_;
        const char32_t code_point = unicode::next_code_point(source_, next);
        if (is_python_space(code_point))
            return advance(skip_space(at_));
        if (is_digit(c))
            return number();
        if (code_point == '_' || unicode::is_word(code_point))
            return name();
        if (c == '\'' || c == '"')
            return string(c);
        static constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                          "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                          ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
        for (std::string_view op : kOperators) {
            if (!looking_at(op))
                continue;
            if (op == "(" || op == "[" || op == "{") {
                open += op == "(" ? ')' : op == "[" ? ']' : '}';
                if (open.size() > 200)
                    syntax_error(line_, "brackets are nested too deeply");
            } else if (op == ")" || op == "]" || op == "}") {
                if (open.empty() || open.back() != op[0])
                    syntax_error(line_, "unexpected '" + std::string(op) + "'");
                open.pop_back();
            }
            add(TokenKind::kOperator, std::string(op));
            return advance(at_ + op.size());
        }
        syntax_error(line_, "unexpected character '" + source_.substr(at_, next - at_) + "'");
    }

    // Digits with single underscores between them, from `at`; 0 when there are none.
    size_t digits(size_t at, int base) const {
        const size_t begin = at;
        auto good = [&](size_t i) {
            if (i >= source_.size() || !std::isxdigit(static_cast<unsigned char>(source_[i])))
                return false;
            return base == 16 || (source_[i] >= '0' && source_[i] < '0' + base);
        };
        while (good(at) || (at > begin && source_[at] == '_' && good(at + 1)))
            ++at;
        return at - begin;
    }

    void number() {
        if (source_[at_] == '0' && at_ + 1 < source_.size()) {
            const char mark = source_[at_ + 1];
            const int base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
            const size_t from = at_ + 2 + (at_ + 2 < source_.size() && source_[at_ + 2] == '_');
            if (const size_t length = base ? digits(from, base) : 0)
                return integer(plain(from, length), base, from + length);
        }
        const size_t whole = digits(at_, 10);
        size_t end = at_ + whole;
        bool real = false;
        // "1.5" is a number, "x.1.5" are two subscripts: no float right behind a dot.
        if (at_ == 0 || source_[at_ - 1] != '.') {
            if (end < source_.size() && source_[end] == '.') {
                if (const size_t fraction = digits(end + 1, 10)) {
                    end += 1 + fraction;
                    real = true;
                }
            }
            if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
                const size_t sign =
                    end + 1 < source_.size() && (source_[end + 1] == '+' || source_[end + 1] == '-');
                if (const size_t exponent = digits(end + 1 + sign, 10)) {
                    end += 1 + sign + exponent;
                    real = true;
                }
            }
        }
        if (!real)
            return integer(plain(at_, whole), 10, end);
        add(TokenKind::kFloat, plain(at_, end - at_));
        advance(end);
    }

    std::string plain(size_t from, size_t length) const {
        std::string text = source_.substr(from, length);
        std::erase(text, '_');
        return text;
    }

    void integer(const std::string& text, int base, size_t end) {
        int64_t value = 0;
        for (char c : text) {
            const int digit = is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10;
            if (__builtin_mul_overflow(value, base, &value) || __builtin_add_overflow(value, digit, &value))
                syntax_error(line_, "integer too large");
        }
        add(TokenKind::kInteger, std::to_string(value));
        advance(end);
    }

    void name() {
        size_t end = at_;
        for (size_t next = at_; next < source_.size(); end = next)
            if (!unicode::is_word(unicode::next_code_point(source_, next)))
                break;
        add(TokenKind::kName, source_.substr(at_, end - at_));
        advance(end);
    }

    void string(char quote) {
        size_t end = at_ + 1;
        while (end < source_.size() && source_[end] != quote)
            end += source_[end] == '\\' ? 2 : 1;
        if (end >= source_.size())
            syntax_error(line_, "string without end");
        add(TokenKind::kString, unescape(std::string_view(source_).substr(at_ + 1, end - at_ - 1)));
        advance(end + 1);
    }

    // Python's escapes. One that Python does not know stands for itself, backslash included.
    std::string unescape(std::string_view text) const {
        std::string out;
        for (size_t i = 0; i < text.size(); ++i) {
            if (text[i] != '\\' || i + 1 == text.size()) {
                out += text[i];
                continue;
            }
            const char c = text[++i];
            static constexpr std::string_view kFrom = "abfnrtv\\'\"", kTo = "\a\b\f\n\r\t\v\\'\"";
            if (const size_t known = kFrom.find(c); known != std::string_view::npos) {
                out += kTo[known];
            } else if (c == 'x' || c == 'u' || c == 'U') {
                char32_t code_point = hex(text, i + 1, c == 'x' ? 2 : c == 'u' ? 4 : 8);
                i += c == 'x' ? 2 : c == 'u' ? 4 : 8;
                if (code_point >= 0xD800 && code_point < 0xDC00 && text.substr(i + 1, 2) == "\\u") {
                    const char32_t low = hex(text, i + 3, 4);
                    if (low >= 0xDC00 && low < 0xE000) {
                        code_point = 0x10000 + ((code_point - 0xD800) << 10) + (low - 0xDC00);
                        i += 6;
                    }
                }
                if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point < 0xE000))
                    syntax_error(line_, "escape of no character in a string");
                unicode::append_utf8(out, code_point);
            } else if (c >= '0' && c <= '7') {
                char32_t code_point = 0;
                size_t count = 0;
                for (;
                     count < 3 && i + count < text.size() && text[i + count] >= '0' && text[i + count] <= '7';
                     ++count)
                    code_point = code_point * 8 + static_cast<char32_t>(text[i + count] - '0');
                unicode::append_utf8(out, code_point);
                i += count - 1;
            } else if (c == 'N') {
                syntax_error(line_, "\\N{…} in a string is not supported");
            } else if (c != '\n') {  // a backslash at the end of a line joins it with the next
                out.append(1, '\\').append(1, c);
            }
        }
        return out;
    }

    char32_t hex(std::string_view text, size_t from, size_t count) const {
        const std::string digits(text.substr(std::min(from, text.size()), count));
        const bool good =
            digits.size() == count &&
            std::all_of(digits.begin(), digits.end(), [](unsigned char d) { return std::isxdigit(d) != 0; });
        if (!good)
            syntax_error(line_, "truncated escape in a string");
        return static_cast<char32_t>(std::stoul(digits, nullptr, 16));
    }

    std::string source_;
    size_t at_ = 0;
    int line_ = 1;
    bool line_starting_ = true;  // what was read last ended a line (or nothing was read)
    std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
    return Lexer(source).run();
}

}  // namespace llm::engine::jinja
