#include "engine_worker/tokenizer/chat_template.hpp"

#include <fstream>
#include <sstream>

#include "engine_worker/tokenizer/jinja/analysis.hpp"
#include "engine_worker/tokenizer/jinja/interpreter.hpp"
#include "engine_worker/tokenizer/jinja/parser.hpp"
#include "engine_worker/tokenizer/unicode.hpp"

namespace llm::engine {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxSource = 1 << 20;
constexpr std::string_view kDefault = "default";  // of the named templates

// For directories without a template. https://github.com/openai/openai-python (chatml.md) describes the form.
constexpr const char* kChatMl =
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

class JinjaTemplate final : public ChatTemplate {
  public:
    explicit JinjaTemplate(std::string_view source)
        : source_(source),
          block_(jinja::parse_template(source)),
          takes_parts_(jinja::walks_content(block_)),
          shows_tools_(jinja::reads(block_, "tools")) {}

    std::string_view source() const override { return source_; }
    bool takes_parts() const override { return takes_parts_; }
    bool shows_tools() const override { return shows_tools_; }
    bool knows_developer() const override {
        return source_.find("'developer'") != std::string::npos || source_.find("\"developer\"") != std::string::npos;
    }

    std::string render(const Context& context) const override {
        try {
            return render_values(context);
        } catch (const jinja::ValueError& error) {  // from the conversion of the request
            throw TemplateError(error.what());
        }
    }

  private:
    std::string render_values(const Context& context) const {
        jinja::Dict variables;
        size_t bytes = 0;
        auto set = [&](const char* name, const ordered_json& value) {
            bytes += size_of(value);
            variables.set(jinja::Value(name), jinja::Value::from_json(value));
        };
        set("messages", context.messages);
        set("tools", context.tools);
        variables.set(jinja::Value("documents"), jinja::Value());
        set("add_generation_prompt", context.add_generation_prompt);
        set("bos_token", context.bos_token);
        set("eos_token", context.eos_token);
        if (context.extra.is_object())
            for (const auto& [name, value] : context.extra.items())
                set(name.c_str(), value);
        // A long conversation may be long, whatever the template does with it.
        jinja::Limits limits;
        limits.output += 2 * bytes;
        limits.memory += 32 * bytes;
        limits.steps += bytes;
        return jinja::Interpreter(limits, variables, context.now).run(block_);
    }

    // Bytes of text in `value`. Its depth is checked by from_json() only afterwards, hence no recursion.
    static size_t size_of(const ordered_json& value) {
        size_t bytes = 0;
        std::vector<const ordered_json*> left{&value};
        while (!left.empty()) {
            const ordered_json& one = *left.back();
            left.pop_back();
            bytes += one.is_string() ? one.get_ref<const std::string&>().size() : 8;
            if (one.is_structured())
                for (const auto& item : one)
                    left.push_back(&item);
        }
        return bytes;
    }

    std::string source_;
    jinja::Block block_;
    bool takes_parts_, shows_tools_;
};

std::optional<std::string> read_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream text;
    if (!in || !(text << in.rdbuf()))
        return std::nullopt;
    return std::move(text).str();
}

// `chat_template` of tokenizer_config.json: a string, which counts as "default", or of a list the one of that name.
// nullopt when it has none.
std::optional<std::string> configured(const std::string& path, std::string_view name) {
    const std::optional<std::string> text = read_file(path);
    if (!text)
        return std::nullopt;
    const ordered_json config = ordered_json::parse(*text, nullptr, /*allow_exceptions=*/false);
    if (!config.is_object())
        throw std::runtime_error(path + ": not a JSON object");
    const auto at = config.find("chat_template");
    if (at == config.end() || at->is_null())
        return std::nullopt;
    const bool must_be_there = name == kDefault;
    if (at->is_string())
        return must_be_there ? std::optional(at->get<std::string>()) : std::nullopt;
    if (at->is_array())
        for (const auto& entry : *at)
            if (entry.is_object() && entry.value("name", ordered_json()) == name && entry.contains("template") &&
                entry["template"].is_string())
                return entry["template"].get<std::string>();
    if (!must_be_there)
        return std::nullopt;
    throw std::runtime_error(path + ": chat_template: must be a string or a list with one named \"default\"");
}

std::unique_ptr<ChatTemplate> parse_from(const std::string& path, std::string_view source) {
    try {
        return ChatTemplate::parse(source);
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(path + ": " + error.what());
    }
}

}  // namespace

std::unique_ptr<ChatTemplate> ChatTemplate::parse(std::string_view source) {
    if (source.size() > kMaxSource)
        throw std::runtime_error("chat template: larger than 1 MiB");
    if (!unicode::is_valid_utf8(source))
        throw std::runtime_error("chat template: not valid UTF-8");
    try {
        return std::make_unique<JinjaTemplate>(source);
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(std::string("chat template, ") + error.what());
    }
}

std::unique_ptr<ChatTemplate> ChatTemplate::load(const std::string& dir) {
    const std::string own = dir + "/chat_template.jinja", config = dir + "/tokenizer_config.json";
    if (const auto text = read_file(own))
        return parse_from(own, *text);
    if (const auto text = configured(config, kDefault))
        return parse_from(config, *text);
    return parse(kChatMl);
}

std::unique_ptr<ChatTemplate> ChatTemplate::load_file(const std::string& path) {
    const auto text = read_file(path);
    if (!text)
        throw std::runtime_error(path + ": cannot be read");
    return parse_from(path, *text);
}

std::unique_ptr<ChatTemplate> ChatTemplate::load_for_tools(const std::string& dir) {
    const std::string own = dir + "/additional_chat_templates/tool_use.jinja", config = dir + "/tokenizer_config.json";
    if (const auto text = read_file(own))
        return parse_from(own, *text);
    // As in transformers: a file of its own replaces what the configuration lists.
    if (read_file(dir + "/chat_template.jinja"))
        return nullptr;
    const auto text = configured(config, "tool_use");
    return text ? parse_from(config, *text) : nullptr;
}

}  // namespace llm::engine
