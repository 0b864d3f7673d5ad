#include "engine_worker/server/tool_call_scan.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

#include "engine_worker/server/bounded_json.hpp"

namespace llm::engine {
namespace {

constexpr size_t kMaxHead = 4096;  // bytes; no function has such a name

class Reader {
  public:
    explicit Reader(std::string_view text) : text_(text) {}

    // The word, white space before it allowed. False: something else stands there, or the text has run_out().
    bool take(std::string_view word) {
        at_ = std::min(text_.find_first_not_of(kJsonSpace, at_), text_.size());
        const size_t n = std::min(word.size(), text_.size() - at_);
        if (text_.substr(at_, n) != word.substr(0, n)) {
            return false;
        }
        run_out_ = n < word.size();
        at_ += n;
        return !run_out_;
    }

    // A string, quotes included.
    bool take_string(std::string_view& out) {
        if (!take("\"")) {
            return false;
        }
        const size_t begin = at_ - 1;
        for (; at_ < text_.size(); ++at_) {
            if (text_[at_] == '"') {
                out = text_.substr(begin, ++at_ - begin);
                return true;
            }
            at_ += text_[at_] == '\\' ? 1 : 0;
        }
        run_out_ = true;
        return false;
    }

    bool run_out() const { return run_out_; }
    size_t at() const { return at_; }

  private:
    std::string_view text_;
    size_t at_ = 0;
    bool run_out_ = false;
};

}  // namespace

CallHead read_call_head(std::string_view text) {
    Reader reader(text.substr(0, kMaxHead));
    std::string_view name;
    const bool fits =
        reader.take("{") && reader.take("\"name\"") && reader.take(":") && reader.take_string(name) &&
        reader.take(",") &&
        (reader.take("\"arguments\"") || (!reader.run_out() && reader.take("\"parameters\""))) &&
        reader.take(":") && reader.take("{");
    if (!fits) {
        return {reader.run_out() && text.size() < kMaxHead ? CallHead::Is::unknown : CallHead::Is::other};
    }
    const auto decoded = parse_bounded_json(name);
    if (!decoded.is_string()) {
        return {CallHead::Is::other};
    }
    return {CallHead::Is::call, decoded.get<std::string>(), reader.at() - 1};
}

size_t ArgumentsScan::push(std::string_view text, std::string& out) {
    size_t at = 0;
    while (at < text.size() && !ended_) {
        const char c = text[at];
        if (in_string_) {
            if (static_cast<unsigned char>(c) < 0x20) {
                std::array<char, 7> code;
                std::snprintf(code.data(), code.size(), "\\u%04x", static_cast<unsigned>(c));
                out += code.data();
            } else {
                out += c;
            }
            in_string_ = c != '"' || escaped_;
            escaped_ = c == '\\' && !escaped_;
        } else if (c == '<') {
            ended_ = true;
            break;
        } else if (kJsonSpace.find(c) == std::string_view::npos) {
            out += c;
            in_string_ = c == '"';
            depth_ += c == '{' || c == '[' ? 1 : 0;
            depth_ -= (c == '}' || c == ']') && depth_ > 0 ? 1 : 0;
            ended_ = depth_ == 0;
        }
        ++at;
    }
    return at;
}

}  // namespace llm::engine
