#include "engine_worker/server/served_model.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "engine_worker/server/api_error.hpp"
#include "engine_worker/server/chat_messages.hpp"

namespace llm::engine {
namespace {

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
    const ChatTemplate& used = template_for(tools != nullptr);
    ChatTemplate::Context context;
    context.messages = template_messages(messages, used, *special_text);
    if (tools != nullptr) {
        context.tools = template_tools(*tools, *special_text);
    }
    context.add_generation_prompt = end.generation_prompt;
    context.bos_token = tokenizer->id_to_token(tokenizer->bos_id());
    context.eos_token = tokenizer->id_to_token(tokenizer->eos_id());
    if (template_kwargs != nullptr) {
        context.extra = template_variables(*template_kwargs, *special_text);
    }
    try {
        std::string rendered = used.render(context);
        if (end.continue_final) {
            cut_behind(final_text(context.messages.back()), rendered);
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
