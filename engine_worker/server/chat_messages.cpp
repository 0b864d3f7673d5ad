#include "engine_worker/server/chat_messages.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "engine_worker/server/api_error.hpp"
#include "engine_worker/server/bounded_json.hpp"

namespace llm::engine {
namespace {

constexpr std::array<std::string_view, 6> kRoles = {"system",    "developer", "user",
                                                    "assistant", "tool",      "function"};
// Names that a message's reasoning goes by, the one that counts first.
constexpr std::array<const char*, 3> kReasoning = {"reasoning_content", "reasoning", "thinking"};

// The kinds of content parts that are text, and where they keep it.
struct TextPart {
    std::string_view type;
    const char* member;
};
constexpr TextPart kTextParts[] = {
    {"text", "text"},       {"input_text", "text"},   {"output_text", "text"},
    {"refusal", "refusal"}, {"thinking", "thinking"},
};

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

std::string text_of_part(const Json& part, const std::string& param) {
    if (part.is_string()) {
        return part.get<std::string>();
    }
    const auto type = part.is_object() ? part.find("type") : part.end();
    if (part.is_object() && type != part.end()) {
        for (const TextPart& kind : kTextParts) {
            if (*type != kind.type) {
                continue;
            }
            const auto text = part.find(kind.member);
            if (text != part.end() && text->is_string()) {
                return text->get<std::string>();
            }
            throw bad_value(param, "A content part of type '" + std::string(kind.type) +
                                       "' needs a string '" + kind.member + "'.");
        }
    }
    throw unsupported(param, "Only content parts of type 'text' are supported by this engine.");
}

std::string joined(const std::vector<std::string>& texts, const char* between) {
    std::string out;
    for (size_t i = 0; i < texts.size(); ++i) {
        out += (i > 0 ? between : "") + texts[i];
    }
    return out;
}

Json as_parts(const std::vector<std::string>& texts) {
    Json out = Json::array();
    for (const std::string& text : texts) {
        out.push_back(Json{{"type", "text"}, {"text", text}});
    }
    return out;
}

// The texts of a message's content, one of each part.
std::vector<std::string> content_texts(const Json& message, const std::string& param) {
    const auto content = message.find("content");
    if (content == message.end()) {
        if (message["role"] != "assistant") {
            throw bad_value(param, "'" + param + "' is required.");
        }
        return {};
    }
    if (content->is_string()) {
        return {content->get<std::string>()};
    }
    if (!content->is_array()) {
        throw bad_value(param, "'" + param + "' must be a string or an array of parts.");
    }
    std::vector<std::string> out;
    for (const Json& part : *content) {
        out.push_back(text_of_part(part, param));
    }
    return out;
}

// Clients send the arguments of earlier calls as JSON text; templates expect what it says. What is no object
// becomes an empty one: it is part of the conversation, which could never go on otherwise.
void open_arguments(Json& calls, const std::string& param) {
    if (!calls.is_array()) {
        throw bad_value(param, "'" + param + "' must be an array.");
    }
    for (Json& call : calls) {
        if (!call.is_object() || !call.contains("function") || !call["function"].is_object()) {
            throw bad_value(param, "Every call in '" + param + "' must have a function.");
        }
        Json& arguments = call["function"]["arguments"];
        if (arguments.is_string()) {
            const std::string& text = arguments.get_ref<const std::string&>();
            if (const char* excess = json_excess(text)) {
                throw bad_value(param, "The arguments of a call in '" + param + "' have " + excess + ".");
            }
            arguments = parse_bounded_json(text);
        }
        if (!arguments.is_object()) {
            arguments = Json::object();
        }
    }
}

// One message, checked; its content is not yet in the template's form.
Json checked_message(const Json& message, const std::string& param) {
    if (!message.is_object()) {
        throw bad_value(param, "'" + param + "' must be an object.");
    }
    const auto role = message.find("role");
    if (role == message.end() || !role->is_string() ||
        std::find(kRoles.begin(), kRoles.end(), role->get_ref<const std::string&>()) == kRoles.end()) {
        throw bad_value(param + ".role",
                        "'" + param + ".role' must be one of system, developer, user, assistant, tool.");
    }
    Json out = Json::object();
    for (const auto& [name, value] : message.items()) {
        if (!value.is_null()) {
            out[name] = value;
        }
    }
    if (const auto calls = out.find("tool_calls"); calls != out.end()) {
        open_arguments(*calls, param + ".tool_calls");
        if (calls->empty()) {
            out.erase(calls);
        }
    }
    for (const char* name : kReasoning) {
        if (out.contains(name) && *role == "assistant") {
            const Json reasoning = out[name];
            for (const char* other : kReasoning) {
                if (!out.contains(other)) {
                    out[other] = reasoning;
                }
            }
            break;
        }
    }
    return out;
}

struct Message {
    Json json;
    std::vector<std::string> texts;
};

// Developers as systems, and all of them in the first message: some templates take no other.
void make_systems(std::vector<Message>& messages) {
    std::vector<std::string> said;
    size_t first = messages.size(), systems = 0;
    for (size_t i = 0; i < messages.size(); ++i) {
        Json& role = messages[i].json["role"];
        role = role == "developer" ? Json("system") : role;
        if (role == "system") {
            first = std::min(first, i);
            ++systems;
            if (std::string text = joined(messages[i].texts, "\n"); !text.empty()) {
                said.push_back(std::move(text));
            }
        }
    }
    if (first == 0 && systems == 1) {
        return;
    }
    std::erase_if(messages, [](const Message& one) { return one.json["role"] == "system"; });
    Message all;
    all.json = {{"role", "system"}};
    all.texts = {joined(said, "\n\n")};
    messages.insert(messages.begin(), std::move(all));
}

}  // namespace

Json template_messages(const Json& messages, const ChatTemplate& chat_template, const SpecialText& special) {
    if (!messages.is_array() || messages.empty()) {
        throw bad_value("messages", "'messages' must be a non-empty array.");
    }
    std::vector<Message> checked;
    bool developer = false;
    for (size_t i = 0; i < messages.size(); ++i) {
        const std::string param = "messages[" + std::to_string(i) + "]";
        Message& one = checked.emplace_back();
        one.json = checked_message(messages[i], param);
        one.texts = content_texts(one.json, param + ".content");
        developer = developer || one.json["role"] == "developer";
    }
    if (developer && !chat_template.knows_developer()) {
        make_systems(checked);
    }
    Json out = Json::array();
    for (Message& one : checked) {
        const bool parts = chat_template.takes_parts() && one.json["role"] != "tool";
        one.json["content"] = parts ? as_parts(one.texts) : Json(joined(one.texts, "\n"));
        mark_strings(one.json, special);
        out.push_back(std::move(one.json));
    }
    return out;
}

Json template_tools(const Json& tools, const SpecialText& special) {
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

Json template_variables(const Json& kwargs, const SpecialText& special) {
    if (!kwargs.is_object()) {
        throw bad_value("chat_template_kwargs", "'chat_template_kwargs' must be an object.");
    }
    for (const char* name : {"messages", "tools", "chat_template", "tokenize"}) {
        if (kwargs.contains(name)) {
            throw bad_value("chat_template_kwargs",
                            "'chat_template_kwargs' must not set '" + std::string(name) + "'.");
        }
    }
    Json out = kwargs;
    mark_strings(out, special);
    return out;
}

std::string final_text(const Json& message) {
    const Json& content = message["content"];
    if (content.is_array()) {
        return content.empty() ? "" : content.back()["text"].get<std::string>();
    }
    return content.get<std::string>();
}

}  // namespace llm::engine
