// What JsonScan should find in a body, by another JSON parser. For the property test and the fuzz target.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "ngx_module/core/text/json_scan.hpp"
#include "shared/json.hpp"

namespace llm::core {

struct JsonReference {
    bool comparable = true;  // false: the other parser refuses a number that is too large for a double
    bool valid = false;
    std::optional<std::string> model, routing_mode;
    std::optional<bool> stream, include_usage;
    std::optional<int32_t> priority;
    std::optional<uint32_t> max_tokens, max_completion_tokens, max_output_tokens, n;
    uint64_t text_bytes = 0, prompt_tokens_given = 0;
    uint32_t prompt_count = 1;
};

// SAX handler; false = refuse.
class JsonReferenceSax : public nlohmann::json_sax<nlohmann::json> {
  public:
    explicit JsonReferenceSax(JsonReference& result) : out_(result) {}

    bool null() override { return element(false) && (path_.clear(), true); }
    bool boolean(bool value) override {
        if (!element(false)) {
            return false;
        }
        const std::string name = take_name();
        if (name == "stream") {
            out_.stream = value;
        } else if (name == "stream_options.include_usage") {
            out_.include_usage = value;
        } else {
            return !is_control(name);
        }
        return true;
    }
    bool number_integer(number_integer_t value) override { return integer(value < 0, magnitude(value)); }
    bool number_unsigned(number_unsigned_t value) override { return integer(false, value); }
    bool number_float(number_float_t, const string_t& text) override {
        if (text.find_first_of(".eE") == std::string::npos) {
            return integer(text[0] == '-', UINT64_MAX);
        }
        return element(false) && !is_control(take_name());
    }
    bool string(string_t& text) override {
        if (!element(true)) {
            return false;
        }
        if (text.rfind("data:", 0) != 0) {
            out_.text_bytes += text.size();
        }
        const std::string name = take_name();
        if (name == "model") {
            out_.model = text;
            return too_long_ = too_long_ || text.size() > ControlKeys::kMaxModel, true;
        }
        if (name == "routing-mode") {
            out_.routing_mode = text;
            return too_long_ = too_long_ || text.size() > ControlKeys::kMaxRoutingMode, true;
        }
        return !is_control(name);
    }
    bool binary(binary_t&) override { return false; }
    bool start_object(std::size_t) override { return open('{'); }
    bool start_array(std::size_t) override { return open('['); }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }
    bool key(string_t& name) override {
        if (stack_ == "{") {
            path_ = name == "stream_options.include_usage" ? "" : name;  // a key of that name is not the path
        } else if (stack_ == "{{" && in_ == "stream_options") {
            path_ = name == "include_usage" ? "stream_options.include_usage" : "";
        } else {
            path_.clear();
            return true;
        }
        return !is_control(path_) || seen_.insert(path_).second;
    }
    bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& e) override {
        out_.comparable = e.id != 406;
        return false;
    }
    bool too_long() const { return too_long_; }

  private:
    static uint64_t magnitude(int64_t value) {
        return value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
    }

    static bool is_control(const std::string& name) {
        static const std::set<std::string> kNames = {"model",
                                                     "stream",
                                                     "priority",
                                                     "max_tokens",
                                                     "max_completion_tokens",
                                                     "max_output_tokens",
                                                     "n",
                                                     "routing-mode",
                                                     "stream_options",
                                                     "stream_options.include_usage"};
        return kNames.count(name) != 0;
    }

    std::string take_name() {
        std::string name;
        name.swap(path_);
        return name;
    }

    // A value begins; `prompt` = it is a prompt if it stands in the array of prompts.
    bool element(bool prompt) {
        if (stack_.empty()) {
            return false;  // not an object
        }
        if (prompt && stack_ == "{[" && in_ == "prompt") {
            ++prompts_;
            out_.prompt_count = prompts_ > 1 ? prompts_ : 1;
        }
        return true;
    }

    bool integer(bool negative, uint64_t value) {
        if (!element(false)) {
            return false;
        }
        const std::string name = take_name();
        if (name == "priority") {
            if (value > (negative ? 0x80000000u : 0x7fffffffu)) {
                return false;
            }
            out_.priority =
                static_cast<int32_t>(negative ? -static_cast<int64_t>(value) : static_cast<int64_t>(value));
            return true;
        }
        for (auto [key, field] : {std::pair{"max_tokens", &out_.max_tokens},
                                  {"max_completion_tokens", &out_.max_completion_tokens},
                                  {"max_output_tokens", &out_.max_output_tokens},
                                  {"n", &out_.n}}) {
            if (name == key) {
                if (negative && value != 0) {
                    return name != "n";
                }
                *field = static_cast<uint32_t>(std::min<uint64_t>(value, ControlKeys::kMaxCount));
                return true;
            }
        }
        const bool given = in_ == "prompt" || in_ == "input" || in_ == "token_ids";
        if (given && (stack_ == "{[" || stack_ == "{[[")) {
            ++out_.prompt_tokens_given;
        }
        return !is_control(name);
    }

    bool open(char bracket) {
        if (stack_.empty() ? bracket != '{' : !element(true)) {
            return false;
        }
        const std::string name = take_name();
        if (is_control(name) && !(name == "stream_options" && bracket == '{')) {
            return false;
        }
        if (stack_.size() == 1) {
            in_ = name;
        }
        stack_ += bracket;
        return stack_.size() <= JsonScan::kMaxDepth;
    }

    bool close() {
        stack_.pop_back();
        if (stack_.size() == 1) {
            in_.clear();
        }
        path_.clear();
        return true;
    }

    JsonReference& out_;
    std::string stack_;  // open brackets
    std::string path_;   // the key whose value comes next, at the top level or in stream_options
    std::string in_;     // the top-level key whose container is open
    std::set<std::string> seen_;
    uint32_t prompts_ = 0;
    bool too_long_ = false;
};

inline JsonReference reference_scan(std::string_view body) {
    JsonReference result;
    // The other parser skips a byte order mark and takes a NUL for the end.
    if (body.find('\0') != std::string_view::npos || body.substr(0, 1) == "\xef") {
        return result;
    }
    JsonReferenceSax sax(result);
    result.valid = nlohmann::json::sax_parse(body, &sax) && !sax.too_long();
    return result;
}

// "" if the scan of `body` agrees with the reference, else what differs.
inline std::string compare(const JsonScan& scan, const JsonReference& reference) {
    if (!reference.comparable) {
        return "";
    }
    if (scan.failed() == reference.valid) {
        return std::string("validity: ") + scan.error();
    }
    if (!reference.valid) {
        return "";
    }
    const ControlKeys& keys = scan.keys();
    const auto text = [](bool has, std::string_view value) {
        return has ? std::optional<std::string>(value) : std::nullopt;
    };
    std::string differs;
    const auto check = [&](const char* name, bool equal) { differs += equal ? "" : std::string(name) + " "; };
    check("model", text(keys.has_model, keys.model()) == reference.model);
    check("routing-mode", text(keys.has_routing_mode, keys.routing_mode()) == reference.routing_mode);
    check("stream", keys.stream == reference.stream);
    check("include_usage", keys.include_usage == reference.include_usage);
    check("priority", keys.priority == reference.priority);
    check("max_tokens", keys.max_tokens == reference.max_tokens);
    check("max_completion_tokens", keys.max_completion_tokens == reference.max_completion_tokens);
    check("max_output_tokens", keys.max_output_tokens == reference.max_output_tokens);
    check("n", keys.n == reference.n);
    check("text_bytes", keys.text_bytes == reference.text_bytes);
    check("prompt_tokens_given", keys.prompt_tokens_given == reference.prompt_tokens_given);
    check("prompt_count", keys.prompt_count == reference.prompt_count);
    return differs;
}

}  // namespace llm::core
