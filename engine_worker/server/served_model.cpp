#include "engine_worker/server/served_model.hpp"

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "engine_worker/server/api_error.hpp"

namespace llm::engine {
namespace {

constexpr std::array<std::string_view, 6> kRoles = {"system",    "developer", "user",
                                                    "assistant", "tool",      "function"};

// Templates expect one string; parts are joined by line breaks.
std::string joined_text(const Json& parts, const std::string& param) {
    std::string out;
    for (const Json& part : parts) {
        if (!part.is_object() || !part.contains("type") || part["type"] != "text" || !part.contains("text") ||
            !part["text"].is_string()) {
            throw unsupported(param, "Only content parts of type 'text' are supported by this engine.");
        }
        out += out.empty() ? "" : "\n";
        out += part["text"].get_ref<const std::string&>();
    }
    return out;
}

// Every string of a message may end up in the prompt: names and tool calls, too.
void mark_strings(Json& value, const SpecialText& special) {
    if (value.is_string()) {
        value = special.mark(value.get_ref<const std::string&>());
    } else if (value.is_structured()) {
        for (Json& member : value) {
            mark_strings(member, special);
        }
    }
}

// Clients send the arguments of earlier calls as JSON text; templates expect what it says.
void open_arguments(Json& calls, const std::string& param) {
    if (calls.is_null()) {
        return;
    }
    if (!calls.is_array()) {
        throw bad_value(param, "'" + param + "' must be an array.");
    }
    for (Json& call : calls) {
        if (!call.is_object() || !call.contains("function") || !call["function"].is_object()) {
            throw bad_value(param, "Every call in '" + param + "' must have a function.");
        }
        Json& function = call["function"];
        if (function.contains("arguments") && function["arguments"].is_string()) {
            Json arguments = Json::parse(function["arguments"].get_ref<const std::string&>(), nullptr, false);
            if (arguments.is_object()) {
                function["arguments"] = std::move(arguments);
            }
        }
    }
}

// One message, checked, its text safe to be put into a template.
Json checked_message(const Json& message, size_t index, const SpecialText& special) {
    const std::string param = "messages[" + std::to_string(index) + "]";
    if (!message.is_object()) {
        throw bad_value(param, "'" + param + "' must be an object.");
    }
    const auto role = message.find("role");
    if (role == message.end() || !role->is_string() ||
        std::find(kRoles.begin(), kRoles.end(), role->get_ref<const std::string&>()) == kRoles.end()) {
        throw bad_value(param + ".role",
                        "'" + param + ".role' must be one of system, developer, user, assistant, tool.");
    }
    Json out = message;
    if (*role == "developer") {
        out["role"] = "system";  // what it was called before; templates know only that
    }
    const auto content = out.find("content");
    const bool none = content == out.end() || content->is_null();
    if (none && *role != "assistant") {
        throw bad_value(param + ".content", "'" + param + ".content' is required.");
    }
    if (none) {
        out["content"] = "";
    } else if (content->is_array()) {
        *content = joined_text(*content, param + ".content");
    } else if (!content->is_string()) {
        throw bad_value(param + ".content", "'" + param + ".content' must be a string or an array of parts.");
    }
    if (const auto calls = out.find("tool_calls"); calls != out.end()) {
        open_arguments(*calls, param + ".tool_calls");
    }
    mark_strings(out, special);
    return out;
}

Json checked_tools(const Json& tools, const SpecialText& special) {
    if (!tools.is_array()) {
        throw bad_value("tools", "'tools' must be an array.");
    }
    for (const Json& tool : tools) {
        const bool function = tool.is_object() && tool.contains("type") && tool["type"] == "function" &&
                              tool.contains("function") && tool["function"].is_object() &&
                              tool["function"].contains("name") && tool["function"]["name"].is_string() &&
                              !tool["function"]["name"].get_ref<const std::string&>().empty();
        if (!function) {
            throw bad_value("tools", "Every tool must have the type 'function' and a function with a name.");
        }
    }
    Json out = tools;
    mark_strings(out, special);
    return out;
}

// Ends a rendered chat behind its last message's text, as transformers does: templates may have trimmed it.
void cut_behind(std::string_view text, std::string& rendered) {
    constexpr std::string_view kSpace = " \t\r\n\v\f";
    text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
    const std::string_view trimmed = text.substr(0, text.find_last_not_of(kSpace) + 1);
    const size_t at = trimmed.empty() ? std::string::npos : rendered.rfind(trimmed);
    if (at == std::string::npos) {
        throw bad_value(
            "continue_final_message",
            "'continue_final_message' needs a last message with text that the chat template writes.");
    }
    rendered.resize(at + (rendered.compare(at, text.size(), text) == 0 ? text.size() : trimmed.size()));
}

void add_end_tokens(const std::string& path, std::vector<int32_t>& out) {
    const Json config = read_json(path);
    if (config.is_null()) {
        return;
    }
    if (!config.is_object()) {
        throw std::runtime_error(path + " is not a JSON object");
    }
    const auto field = config.find("eos_token_id");
    if (field == config.end() || field->is_null()) {
        return;
    }
    const Json list = field->is_array() ? *field : Json::array({*field});
    for (const Json& id : list) {
        if (!id.is_number_integer()) {
            throw std::runtime_error(path + ": \"eos_token_id\" is neither a number nor a list of numbers");
        }
        out.push_back(id.get<int32_t>());
    }
}

}  // namespace

Json read_json(const std::string& path) {
    std::ifstream file(path);
    if (!file) {
        return nullptr;
    }
    const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    return Json::parse(text, nullptr, false);
}

bool ServedModel::serves(const std::string& name) const {
    return std::find(names.begin(), names.end(), name) != names.end();
}

std::vector<int32_t> ServedModel::encode_chat(const Json& messages, const Json* tools,
                                              const Json* template_kwargs, const PromptEnd& end,
                                              size_t most) const {
    if (!messages.is_array() || messages.empty()) {
        throw bad_value("messages", "'messages' must be a non-empty array.");
    }
    ChatTemplate::Context context;
    context.messages = Json::array();
    for (size_t i = 0; i < messages.size(); ++i) {
        context.messages.push_back(checked_message(messages[i], i, *special_text));
    }
    if (tools != nullptr) {
        context.tools = checked_tools(*tools, *special_text);
    }
    context.add_generation_prompt = end.generation_prompt;
    context.bos_token = tokenizer->id_to_token(tokenizer->bos_id());
    context.eos_token = tokenizer->id_to_token(tokenizer->eos_id());
    if (template_kwargs != nullptr) {
        if (!template_kwargs->is_object()) {
            throw bad_value("chat_template_kwargs", "'chat_template_kwargs' must be an object.");
        }
        context.extra = *template_kwargs;
    }
    try {
        const bool for_tools = tools != nullptr && tool_template != nullptr;
        std::string rendered = (for_tools ? tool_template : chat_template)->render(context);
        if (end.continue_final) {
            cut_behind(context.messages.back()["content"].get_ref<const std::string&>(), rendered);
        }
        return special_text->encode(rendered, most);
    } catch (const TemplateError& error) {
        throw bad_value("messages", std::string("The chat template refused these messages: ") + error.what());
    } catch (const std::runtime_error& error) {
        throw bad_value("messages", std::string("These messages cannot be tokenized: ") + error.what());
    }
}

bool load_pooling(const std::string& dir, Task& pooling, std::string& why) {
    const Json modules = read_json(dir + "/modules.json");
    if (modules.is_array()) {
        for (const Json& module : modules) {
            const std::string type = module.is_object() ? module.value("type", "") : "";
            const std::string_view name = std::string_view(type).substr(type.rfind('.') + 1);
            if (name != "Transformer" && name != "Pooling" && name != "Normalize") {
                why = "The model's embeddings need the module '" + type +
                      "', which this engine does not support.";
                return false;
            }
        }
    }
    const Json config = read_json(dir + "/1_Pooling/config.json");
    if (config.is_null()) {
        pooling = Task::embed_last;
        return true;
    }
    std::vector<std::string> modes;
    if (config.is_object()) {
        for (const auto& [key, value] : config.items()) {
            if (key.starts_with("pooling_mode_") && value == Json(true)) {
                modes.push_back(key);
            }
        }
    }
    const std::string mode = modes.size() == 1 ? modes[0] : "";
    if (mode != "pooling_mode_lasttoken" && mode != "pooling_mode_mean_tokens") {
        why = "The model's embeddings are pooled in a way that this engine does not support" +
              (mode.empty() ? std::string(".") : " (" + mode + ").");
        return false;
    }
    pooling = mode == "pooling_mode_lasttoken" ? Task::embed_last : Task::embed_mean;
    return true;
}

std::vector<int32_t> load_end_tokens(const std::string& dir, const Tokenizer& tokenizer) {
    std::vector<int32_t> out;
    add_end_tokens(dir + "/generation_config.json", out);
    add_end_tokens(dir + "/config.json", out);
    if (tokenizer.eos_id() >= 0) {
        out.push_back(tokenizer.eos_id());
    }
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
}

}  // namespace llm::engine
