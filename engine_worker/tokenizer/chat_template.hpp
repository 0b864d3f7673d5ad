// Chat templates: the Jinja subset that real models' templates use, byte for byte as Python's jinja2 renders
// it under transformers' settings (trim_blocks, lstrip_blocks, loop controls, tojson without HTML escapes).
#pragma once

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "shared/json.hpp"

namespace llm::engine {

class ChatTemplate {
  public:
    // Parses a template. Throws std::runtime_error naming line and construct that is not supported.
    static std::unique_ptr<ChatTemplate> parse(std::string_view source);

    // The template of a model directory: chat_template.jinja, else `chat_template` of tokenizer_config.json
    // (a string, or a list of which "default" is taken); else, where the directory has none, ChatML.
    static std::unique_ptr<ChatTemplate> load(const std::string& dir);

    // The template in the file at `path`. Throws std::runtime_error naming it.
    static std::unique_ptr<ChatTemplate> load_file(const std::string& path);

    // The template that a model directory has for requests with tools, besides the one of load(): the "tool_use" of
    // additional_chat_templates or of that list. Null: it has none.
    static std::unique_ptr<ChatTemplate> load_for_tools(const std::string& dir);

    virtual ~ChatTemplate() = default;

    // The template as it was parsed.
    virtual std::string_view source() const = 0;

    // Goes through the parts of a message's content by itself: `content` is then to be a list of parts, for other
    // templates one string. vLLM decides it by the same rule.
    virtual bool takes_parts() const = 0;
    // Reads the variable `tools`: shows the model what it may call.
    virtual bool shows_tools() const = 0;
    // Knows messages of the role "developer".
    virtual bool knows_developer() const = 0;

    struct Context {
        nlohmann::ordered_json messages;  // array of {role, content, …} as the client sent them
        nlohmann::ordered_json tools;     // array or null
        bool add_generation_prompt = true;
        std::string bos_token, eos_token;
        nlohmann::ordered_json extra;  // chat_template_kwargs: more variables, or null
        std::optional<int64_t> now;    // seconds since 1970 for strftime_now; absent = the clock
    };
    // Throws TemplateError when the template itself refuses (raise_exception) or fails, or passes its limits.
    virtual std::string render(const Context& context) const = 0;
};

// The message is fit for the client (400): the template's own words, or what failed.
class TemplateError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

}  // namespace llm::engine
