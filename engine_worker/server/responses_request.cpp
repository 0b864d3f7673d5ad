#include "engine_worker/server/responses_request.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include "engine_worker/server/api_error.hpp"
#include "engine_worker/server/bounded_json.hpp"

namespace llm::engine {
namespace {

struct Name {
    const char* name;
    const char* instead;
};

// What needs an earlier request to be remembered, and what to do instead.
constexpr Name kKept[] = {
    {"previous_response_id", "this engine keeps no responses: send the whole conversation as 'input'."},
    {"conversation", "this engine keeps no conversations: send the whole one as 'input'."},
    {"prompt", "this engine keeps no prompts: send 'instructions' and 'input'."},
};

// Names of a chat completion; here they would be overlooked.
constexpr Name kChatNames[] = {
    {"logprobs", "include"},
    {"max_completion_tokens", "max_output_tokens"},
    {"max_tokens", "max_output_tokens"},
    {"messages", "input"},
    {"reasoning_effort", "reasoning.effort"},
    {"response_format", "text.format"},
};

// Fields of a response that a chat has not, or has with another meaning.
constexpr const char* kResponseOnly[] = {"include",           "input",     "instructions",
                                         "max_output_tokens", "reasoning", "text",
                                         "tool_choice",       "tools",     "top_logprobs"};

std::string place(const char* list, size_t index) {
    return std::string(list) + "[" + std::to_string(index) + "]";
}

const Json* array(const Params& params, const char* name) {
    const Json* value = params.find(name);
    if (value != nullptr && !value->is_array()) {
        throw bad_value(name, "'" + std::string(name) + "' must be an array.");
    }
    return value;
}

const Json* object(const Params& params, const char* name) {
    const Json* value = params.find(name);
    if (value != nullptr && !value->is_object()) {
        throw bad_value(name, "'" + std::string(name) + "' must be an object.");
    }
    return value;
}

std::string required(const Params& item, const std::string& where, const char* name) {
    std::string value = item.string(name).value_or("");
    if (value.empty()) {
        throw bad_value(where + "." + name, "'" + where + "." + name + "' is required.");
    }
    return value;
}

// ---- input ------------------------------------------------------------------------------------------------

// Text, or text parts, which chats take as they are.
Json content(const Params& item, const std::string& where, const char* name) {
    const std::string param = where + "." + name;
    const Json* value = item.find(name);
    if (value == nullptr) {
        throw bad_value(param, "'" + param + "' is required.");
    }
    if (value->is_string()) {
        return *value;
    }
    if (!value->is_array()) {
        throw bad_value(param, "'" + param + "' must be a string or an array of parts.");
    }
    Json out = Json::array();
    for (size_t i = 0; i < value->size(); ++i) {
        const Json& part = (*value)[i];
        const std::string part_param = place(param.c_str(), i);
        const std::string type =
            part.is_object() ? Params(part, part_param + ".").string("type").value_or("") : "";
        if (type != "input_text" && type != "output_text" && type != "refusal") {
            throw unsupported(part_param,
                              "'" + part_param +
                                  "' must be a part of type input_text, output_text or refusal; this engine "
                                  "supports no others.");
        }
        const char* member = type == "refusal" ? "refusal" : "text";
        const auto text = Params(part, part_param + ".").string(member);
        if (!text.has_value()) {
            throw bad_value(part_param + "." + member, "'" + part_param + "." + member + "' is required.");
        }
        out.push_back({{"type", "text"}, {"text", *text}});
    }
    return out;
}

void add_message(const Params& item, const std::string& where, Json& messages) {
    constexpr std::array<std::string_view, 4> kRoles = {"user", "assistant", "system", "developer"};
    const std::string role = item.string("role").value_or("");
    if (std::find(kRoles.begin(), kRoles.end(), role) == kRoles.end()) {
        throw bad_value(where + ".role",
                        "'" + where + ".role' must be one of user, assistant, system, developer.");
    }
    messages.push_back({{"role", role}, {"content", content(item, where, "content")}});
}

// Calls belong to the assistant's message before them: a chat has what was said and called in one.
void add_call(const Params& item, const std::string& where, Json& messages) {
    Json call = {{"id", required(item, where, "call_id")}, {"type", "function"}};
    call["function"] = {{"name", required(item, where, "name")},
                        {"arguments", item.string("arguments").value_or("{}")}};
    if (const char* excess = json_excess(call["function"]["arguments"].get_ref<const std::string&>())) {
        throw bad_value(where + ".arguments", "'" + where + ".arguments' has " + excess + ".");
    }
    if (messages.empty() || messages.back()["role"] != "assistant") {
        messages.push_back({{"role", "assistant"}});
    }
    messages.back()["tool_calls"].push_back(std::move(call));
}

void add_item(const Json& json, const std::string& where, Json& messages) {
    if (!json.is_object()) {
        throw bad_value(where, "'" + where + "' must be an object.");
    }
    const Params item(json, where + ".");
    const std::string type = item.string("type").value_or(
        item.find("role") == nullptr && item.find("id") != nullptr ? "item_reference" : "message");
    if (type == "message") {
        add_message(item, where, messages);
    } else if (type == "function_call") {
        add_call(item, where, messages);
    } else if (type == "function_call_output") {
        messages.push_back({{"role", "tool"},
                            {"tool_call_id", required(item, where, "call_id")},
                            {"content", content(item, where, "output")}});
    } else if (type == "item_reference") {
        throw unsupported(where,
                          "'" + where +
                              "' refers to an item, but this engine keeps none: send the item itself, as "
                              "clients do with 'store' false.");
    } else if (type != "reasoning") {  // what was thought before is not shown to the model again
        throw unsupported(
            where + ".type",
            "'" + where +
                ".type' must be one of message, function_call, function_call_output, reasoning; "
                "this engine supports no others.");
    }
}

Json messages_of(const Params& params) {
    Json messages = Json::array();
    if (const std::string instructions = params.string("instructions").value_or(""); !instructions.empty()) {
        messages.push_back({{"role", "system"}, {"content", instructions}});
    }
    const Json* input = params.find("input");
    if (input == nullptr || !(input->is_string() || input->is_array()) || input->empty()) {
        throw bad_value("input", "You must provide 'input', a string or an array of items.");
    }
    if (input->is_string()) {
        messages.push_back({{"role", "user"}, {"content", *input}});
        return messages;
    }
    for (size_t i = 0; i < input->size(); ++i) {
        add_item((*input)[i], place("input", i), messages);
    }
    return messages;
}

// ---- tools and form ---------------------------------------------------------------------------------------

Json tools_of(const Json& tools) {
    constexpr std::array<std::string_view, 4> kFunction = {"name", "description", "parameters", "strict"};
    Json out = Json::array();
    for (size_t i = 0; i < tools.size(); ++i) {
        const std::string where = place("tools", i);
        const Json& tool = tools[i];
        if (!tool.is_object()) {
            throw bad_value(where, "'" + where + "' must be an object.");
        }
        const Params params(tool, where + ".");
        if (const std::string type = params.string("type").value_or(""); type != "function") {
            throw unsupported(where + ".type",
                              "'" + where + ".type' must be function; this engine has no tools of its own.");
        }
        required(params, where, "name");
        Json function = Json::object();  // in the client's order, which templates show to the model
        for (const auto& [name, value] : tool.items()) {
            if (!value.is_null() && std::find(kFunction.begin(), kFunction.end(), name) != kFunction.end()) {
                function[name] = value;
            }
        }
        out.push_back({{"type", "function"}, {"function", std::move(function)}});
    }
    return out;
}

Json tool_choice_of(const Json& choice) {
    if (!choice.is_object()) {
        return choice;
    }
    const Params params(choice, "tool_choice.");
    if (params.string("type").value_or("") != "function") {
        return choice;  // refused as in a chat
    }
    return {{"type", "function"}, {"function", {{"name", required(params, "tool_choice", "name")}}}};
}

Json response_format_of(const Json& format) {
    if (!format.is_object() || !format.contains("type") || format["type"] != "json_schema") {
        return format;
    }
    Json schema = format;
    schema.erase("type");
    return {{"type", "json_schema"}, {"json_schema", std::move(schema)}};
}

// ---- what is repeated -------------------------------------------------------------------------------------

Json given(const Params& params, const char* name, Json absent) {
    const Json* value = params.find(name);
    return value == nullptr ? absent : *value;
}

Json repeated_tools(const Params& params) {
    Json out = given(params, "tools", Json::array());
    for (Json& tool : out) {
        for (const char* name : {"description", "parameters", "strict"}) {
            if (!tool.contains(name)) {
                tool[name] = nullptr;  // clients look for them
            }
        }
    }
    return out;
}

Json repeated_choice(const Params& params) {
    const Json choice = given(params, "tool_choice", "auto");
    return choice.is_object() ? Json{{"type", "function"}, {"name", choice["name"]}} : choice;
}

// The members of the response that repeat the request, or say what is always so; of a body that was taken.
// Objects have their known members only: what else a client writes might be taken for the response's own.
std::string repeated(const Params& params) {
    const Json text = given(params, "text", Json::object());
    const Json reasoning = given(params, "reasoning", Json::object());
    const Params form(text);
    const Params thoughts(reasoning);
    const Json out = {
        {"background", false},
        {"instructions", given(params, "instructions", nullptr)},
        {"max_output_tokens", given(params, "max_output_tokens", nullptr)},
        {"metadata", given(params, "metadata", Json::object())},
        {"parallel_tool_calls", given(params, "parallel_tool_calls", true)},
        {"previous_response_id", nullptr},
        {"prompt_cache_key", given(params, "prompt_cache_key", nullptr)},
        {"reasoning",
         {{"effort", given(thoughts, "effort", nullptr)}, {"summary", given(thoughts, "summary", nullptr)}}},
        {"safety_identifier", given(params, "safety_identifier", nullptr)},
        {"service_tier", "default"},
        {"store", false},
        {"text",
         {{"format", given(form, "format", {{"type", "text"}})},
          {"verbosity", given(form, "verbosity", "medium")}}},
        {"tool_choice", repeated_choice(params)},
        {"tools", repeated_tools(params)},
        {"top_logprobs", given(params, "top_logprobs", 0)},
        {"truncation", "disabled"},
        {"user", given(params, "user", nullptr)},
    };
    const std::string json = out.dump(-1, ' ', false, Json::error_handler_t::replace);
    return json.substr(1, json.size() - 2);
}

// ---- the request ------------------------------------------------------------------------------------------

void refuse_what_is_kept(const Params& params) {
    for (const auto& [name, instead] : kKept) {
        if (params.find(name) != nullptr) {
            throw unsupported(name, "'" + std::string(name) + "' is not supported: " + instead);
        }
    }
    if (params.boolean("background").value_or(false)) {
        throw unsupported("background",
                          "'background' is not supported: this engine keeps no responses to be asked for "
                          "later; 'stream' shows them while they are written.");
    }
}

void refuse_chat_names(const Params& params) {
    for (const auto& [name, instead] : kChatNames) {
        if (params.find(name) != nullptr) {
            throw unsupported(name, "'" + std::string(name) + "' is '" + instead + "' in /v1/responses.");
        }
    }
    for (const char* name : {"n", "best_of"}) {
        if (params.find(name) != nullptr && *params.find(name) != 1) {
            throw unsupported(
                name, "/v1/responses gives one answer: '" + std::string(name) + "' is not supported.");
        }
    }
}

// Fields that change nothing here, but are not to be something else.
void check_remarks(const Params& params) {
    if (const Json* metadata = object(params, "metadata")) {
        if (!std::all_of(metadata->begin(), metadata->end(),
                         [](const Json& one) { return one.is_string(); })) {
            throw bad_value("metadata", "The values of 'metadata' must be strings.");
        }
    }
    params.boolean("store");
    for (const char* name : {"prompt_cache_key", "safety_identifier", "service_tier", "user"}) {
        params.string(name);
    }
    const std::string truncation = params.string("truncation").value_or("disabled");
    if (truncation != "disabled" && truncation != "auto") {
        throw bad_value("truncation", "'truncation' must be auto or disabled.");
    }
}

// Log probabilities come when they are to be included; of how many tokens says nothing about that.
void set_logprobs(const Params& params, Json& chat) {
    const auto top = params.integer("top_logprobs", 0, kMaxTopLogprobs);
    const Json* include = array(params, "include");
    if (include != nullptr &&
        std::find(include->begin(), include->end(), "message.output_text.logprobs") != include->end()) {
        chat["logprobs"] = true;
        chat["top_logprobs"] = top.value_or(0);
    }
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
    for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
        text.replace(at, from.size(), to);
    }
}

// A chat's names in what a client is told, as it knows them.
void rename(ApiError& error) {
    if (error.param == "messages") {
        error.param = "input";
        replace_all(error.message, "'messages'", "'input'");
    } else if (error.param == "response_format") {
        error.param = "text.format";
        replace_all(error.message, "'response_format.json_schema", "'text.format");
        replace_all(error.message, "'response_format", "'text.format");
    } else if (error.param.starts_with("tools[")) {
        replace_all(error.param, "].function.", "].");
        replace_all(error.message, "].function.", "].");
    }
}

}  // namespace

Json chat_of_response(const Json& body) {
    const Params params(body);
    refuse_what_is_kept(params);
    refuse_chat_names(params);
    check_remarks(params);
    Json chat = body;
    for (const char* name : kResponseOnly) {
        chat.erase(name);
    }
    chat["messages"] = messages_of(params);
    if (const auto most = params.integer("max_output_tokens", 1, std::numeric_limits<int32_t>::max())) {
        chat["max_completion_tokens"] = *most;
    }
    if (const Json* tools = array(params, "tools")) {
        chat["tools"] = tools_of(*tools);
    }
    if (const Json* choice = params.find("tool_choice")) {
        chat["tool_choice"] = tool_choice_of(*choice);
    }
    if (const Json* text = object(params, "text")) {
        const Params form(*text, "text.");
        form.string("verbosity");
        if (const Json* format = form.find("format")) {
            chat["response_format"] = response_format_of(*format);
        }
    }
    if (const Json* reasoning = object(params, "reasoning")) {
        const Params thoughts(*reasoning, "reasoning.");
        thoughts.string("summary");
        if (const auto effort = thoughts.string("effort")) {
            chat["reasoning_effort"] = *effort;
        }
    }
    set_logprobs(params, chat);
    return chat;
}

GenerationCall parse_response(const HttpRequest& http, const ServedModel& model, uint64_t random_seed) {
    const Json body = parse_body(http);
    const Json chat = chat_of_response(body);
    try {
        GenerationCall call = parse_chat(http, chat, model, random_seed);
        call.shape.response = repeated(Params(body));
        return call;
    } catch (ApiError& error) {
        rename(error);
        throw;
    }
}

}  // namespace llm::engine
