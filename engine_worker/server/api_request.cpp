#include "engine_worker/server/api_request.hpp"

#include <algorithm>
#include <charconv>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "engine_worker/server/api_error.hpp"
#include "engine_worker/server/bounded_json.hpp"

namespace llm::engine {
namespace {

constexpr int64_t kMaxChoices = 128;              // of one request, over all prompts
constexpr int64_t kMaxInputs = 2048;              // of one request for embeddings, as OpenAI has it
constexpr int32_t kDefaultCompletionTokens = 16;  // of the legacy endpoint, as OpenAI documents it
constexpr int32_t kMaxClass = 10000;

void read_priority(const HttpRequest& http, const Params& params, Request& request) {
    const auto body = params.integer("priority", -kMaxClass, kMaxClass);
    const std::string_view header = http.header("x-llm-priority");
    if (header.empty()) {
        request.priority_class = kDefaultPriorityClass + static_cast<int32_t>(body.value_or(0));
        return;
    }
    int32_t value = 0;
    const auto [end, error] = std::from_chars(header.data(), header.data() + header.size(), value);
    if (error != std::errc() || end != header.data() + header.size() || value < -kMaxClass ||
        value > kMaxClass) {
        throw bad_value("x-llm-priority", "The header x-llm-priority must be an integer.");
    }
    request.priority_class = value;
}

void read_salt(const HttpRequest& http, const Params& params, Request& request) {
    const auto body = params.string("cache_salt");
    const std::string_view header = http.header("x-llm-client");
    // Marked by origin: a client cannot name another client in the body and share its cache.
    if (!header.empty()) {
        request.salt = "c" + std::string(header);
    } else if (body.has_value()) {
        request.salt = "s" + *body;
    }
}

// Fields that both endpoints share.
void read_common(const HttpRequest& http, const Params& params, const ServedModel& model,
                 uint64_t random_seed, GenerationCall& call) {
    call.shape.model = checked_model(params, model);
    refuse_unsupported(params);
    call.shape.stream = params.boolean("stream").value_or(false);
    if (const Json* options = params.find("stream_options")) {
        if (!options->is_object()) {
            throw bad_value("stream_options", "'stream_options' must be an object.");
        }
        if (!call.shape.stream) {
            throw bad_value("stream_options", "'stream_options' is only allowed when 'stream' is true.");
        }
        const Params inner(*options, "stream_options.");
        call.shape.include_usage = inner.boolean("include_usage").value_or(false);
        call.shape.continuous_usage =
            inner.boolean("continuous_usage_stats").value_or(false) && call.shape.include_usage;
    }
    call.request.n = static_cast<int32_t>(params.integer("n", 1, kMaxChoices).value_or(1));
    if (params.integer("best_of", 1, kMaxChoices).value_or(call.request.n) != call.request.n) {
        throw unsupported("best_of", "'best_of' other than 'n' is not supported by this engine.");
    }
    SamplingLimits limits = model.limits();
    limits.least_tokens = !call.shape.chat && params.boolean("echo").value_or(false) ? 0 : 1;
    call.request.sampling = parse_sampling(params, limits, random_seed);
    if (call.request.sampling.max_tokens == 0) {
        call.shape.only_echo = true;
        call.request.sampling.max_tokens = 1;  // the engine stops after tokens only
    }
    read_priority(http, params, call.request);
    read_salt(http, params, call.request);
}

// `answer`: whether tokens are to follow the prompt.
void check_prompt(const std::vector<int32_t>& ids, const ServedModel& model, const std::string& param,
                  bool answer) {
    if (ids.empty()) {
        throw bad_value(param, "The prompt is empty.");
    }
    if (ids.size() + (answer ? 1 : 0) > static_cast<size_t>(model.max_context)) {
        const bool counted = ids.size() <= model.most_counted();
        throw ApiError(400, "invalid_request_error", "context_length_exceeded",
                       "This model's maximum context length is " + std::to_string(model.max_context) +
                           " tokens, but the prompt has " + (counted ? "" : "more than ") +
                           std::to_string(counted ? ids.size() : model.most_counted()) +
                           (answer ? " and one more is needed for the answer." : "."),
                       param);
    }
    // Padding that fine-tuning has added to the tokenizer alone, most often.
    const auto unknown = std::find_if(ids.begin(), ids.end(), [&](int32_t id) { return id >= model.vocab_size; });
    if (unknown != ids.end()) {
        throw bad_value(param, "The prompt has the token " + std::to_string(*unknown) + " ('" +
                                   std::string(model.tokenizer->id_to_token(*unknown)) +
                                   "'): the tokenizer has it, but the model knows only those below " +
                                   std::to_string(model.vocab_size) + ".");
    }
}

std::vector<int32_t> checked_ids(const Json& list, const ServedModel& model, const std::string& param) {
    std::vector<int32_t> ids;
    for (const Json& id : list) {
        if (!is_token_id(id, model.tokenizer->vocab_size())) {
            throw bad_value(param, "'" + param + "' holds something that is not a token id; " +
                                       token_range(model.tokenizer->vocab_size()));
        }
        ids.push_back(id.get<int32_t>());
    }
    return ids;
}

std::vector<int32_t> encode_text(const std::string& text, const ServedModel& model, bool add_special,
                                 const std::string& param, size_t most = SIZE_MAX) {
    try {
        return model.tokenizer->encode(text,
                                       {.add_special = add_special, .parse_special = true, .most = most});
    } catch (const std::runtime_error& error) {
        throw bad_value(param, "'" + param + "' cannot be tokenized: " + error.what());
    }
}

// A string, an array of strings, an array of token ids, or an array of arrays of token ids.
std::vector<std::vector<int32_t>> parse_prompts(const Json& prompt, const ServedModel& model,
                                                bool add_special, const std::string& param, int64_t most) {
    const auto encode = [&](const Json& text) {
        return encode_text(text.get_ref<const std::string&>(), model, add_special, param,
                           model.most_counted());
    };
    if (prompt.is_string()) {
        return {encode(prompt)};
    }
    if (!prompt.is_array() || prompt.empty()) {
        throw bad_value(param,
                        "'" + param + "' must be a string, or a non-empty array of strings or token ids.");
    }
    if (prompt.front().is_number()) {
        return {checked_ids(prompt, model, param)};
    }
    std::vector<std::vector<int32_t>> out;
    if (prompt.size() > static_cast<size_t>(most)) {
        throw bad_value(param, "At most " + std::to_string(most) + " prompts are supported.");
    }
    for (const Json& one : prompt) {
        if (one.is_string()) {
            out.push_back(encode(one));
        } else if (one.is_array()) {
            out.push_back(checked_ids(one, model, param));
        } else {
            throw bad_value(param, "'" + param + "' must hold strings or arrays of token ids.");
        }
    }
    return out;
}

}  // namespace

Json parse_body(const HttpRequest& http) {
    if (!http.header("content-encoding").empty() && http.header("content-encoding") != "identity") {
        throw ApiError(415, "invalid_request_error", "unsupported_encoding",
                       "A Content-Encoding is not supported; send plain JSON.");
    }
    if (const char* excess = json_excess(http.body)) {
        throw ApiError(400, "invalid_request_error", "invalid_json",
                       std::string("The request body has ") + excess + ".");
    }
    Json body = Json::parse(http.body, nullptr, false);
    if (!body.is_object()) {
        throw ApiError(400, "invalid_request_error", "invalid_json",
                       body.is_discarded() ? "The request body is not valid JSON."
                                           : "The request body is not a JSON object.");
    }
    return body;
}

std::string checked_model(const Params& params, const ServedModel& model) {
    const auto name = params.string("model");
    if (!name.has_value() || name->empty()) {
        throw ApiError(400, "invalid_request_error", "model_required",
                       "You must provide a 'model' parameter.", "model");
    }
    if (!model.serves(*name)) {
        throw ApiError(404, "invalid_request_error", "model_not_found",
                       "The model '" + *name + "' does not exist.", "model");
    }
    return *name;
}

namespace {

PromptEnd read_prompt_end(const Params& params) {
    const auto generation_prompt = params.boolean("add_generation_prompt");
    PromptEnd end;
    end.continue_final = params.boolean("continue_final_message").value_or(false);
    end.generation_prompt = generation_prompt.value_or(!end.continue_final);
    if (end.continue_final && end.generation_prompt) {
        throw bad_value("continue_final_message",
                        "'continue_final_message' and 'add_generation_prompt' cannot both be true.");
    }
    return end;
}

// What the template may read besides messages and tools: chat_template_kwargs, and the parameters that are
// such, too.
Json read_template_variables(const Params& params) {
    const Json* kwargs = params.find("chat_template_kwargs");
    Json out = kwargs == nullptr ? Json::object() : *kwargs;
    if (!out.is_object()) {
        return out;
    }
    if (const auto effort = params.string("reasoning_effort")) {
        out["reasoning_effort"] = *effort;  // some templates write it into the prompt
        if (!out.contains("enable_thinking")) {
            out["enable_thinking"] = *effort != "none";
        }
    }
    if (const Json* documents = params.find("documents")) {
        const bool objects =
            documents->is_array() && std::all_of(documents->begin(), documents->end(),
                                                 [](const Json& one) { return one.is_object(); });
        if (!objects) {
            throw bad_value("documents", "'documents' must be an array of objects.");
        }
        out["documents"] = *documents;
    }
    return out;
}

// The tools that the prompt is to show; null = none.
const Json* shown_tools(const Params& params) {
    const Json* tools = params.find("tools");
    const Json* choice = params.find("tool_choice");
    const bool none = tools != nullptr && tools->is_array() && tools->empty();
    return none || (choice != nullptr && *choice == "none") ? nullptr : tools;
}

// shown_tools(), and what they mean for the form of the answer.
const Json* read_tools(const Params& params, GenerationCall& call) {
    const Json* tools = shown_tools(params);
    if (const Json* choice = params.find("tool_choice");
        choice != nullptr && *choice != "none" && *choice != "auto" && *choice != "required" && !choice->is_object()) {
        throw bad_value("tool_choice", "'tool_choice' must be none, auto, required or the function that must be called.");
    }
    call.shape.output.tools = tools != nullptr;
    call.shape.output.one_call = !params.boolean("parallel_tool_calls").value_or(true);
    if (tools != nullptr && tools->is_array()) {
        for (const Json& tool : *tools) {
            if (tool.is_object() && tool.contains("function") && tool["function"].is_object()) {
                call.shape.output.names.push_back(Params(tool["function"]).string("name").value_or(""));
            }
        }
    }
    return tools;
}

// The function that `tool_choice` names; empty: none.
std::string named_function(const Json& choice) {
    if (!choice.is_object()) {
        return "";
    }
    const Params params(choice);
    if (params.string("type").value_or("") != "function") {
        throw unsupported("tool_choice",
                          "An object as 'tool_choice' is supported with the type 'function' only.");
    }
    const Json* function = params.find("function");
    const std::string name =
        function != nullptr && function->is_object() ? Params(*function).string("name").value_or("") : "";
    if (name.empty()) {
        throw bad_value("tool_choice", "'tool_choice.function.name' is required.");
    }
    return name;
}

// What tool_choice and the tools, checked already, mean for the form of the answer.
void read_calls(const Params& params, const Json* tools, bool one_call, Constraint& out) {
    const Json* choice = params.find("tool_choice");
    const std::string name = choice == nullptr ? "" : named_function(*choice);
    const bool required = choice != nullptr && (*choice == "required" || !name.empty());
    if (tools == nullptr) {
        if (required) {
            throw bad_value("tool_choice", "'tool_choice' asks for a call, but there are no 'tools'.");
        }
        return;
    }
    out.calls = required ? Constraint::Calls::required : Constraint::Calls::allowed;
    out.several_calls = !one_call && name.empty();
    for (size_t i = 0; i < tools->size(); ++i) {
        const Json& function = (*tools)[i]["function"];
        const auto& function_name = function["name"].get_ref<const std::string&>();
        if (!name.empty() && function_name != name) {
            continue;
        }
        const std::string param = "tools[" + std::to_string(i) + "].function.parameters";
        const Json* parameters = Params(function).find("parameters");
        if (parameters != nullptr && !parameters->is_object()) {
            throw bad_value(param, "'" + param + "' must be a JSON Schema.");
        }
        out.tools.push_back({function_name, parameters == nullptr ? Json() : *parameters, param});
    }
    if (out.tools.empty()) {
        throw bad_value("tool_choice", "'tool_choice' names a function that is not among the 'tools'.");
    }
}

// Compiles what the request demands, if it demands anything.
void constrain(const Constraint& constraint, const ServedModel& model, GenerationCall& call) {
    if (constraint.constrains()) {
        if (model.grammars == nullptr) {
            throw unsupported("response_format");
        }
        call.request.grammar = compile(constraint, *model.grammars);
    }
}

// Some templates open the reasoning themselves: the answer then starts inside.
bool opens_thinking(const std::vector<int32_t>& prompt, const Tokenizer& tokenizer) {
    constexpr std::ptrdiff_t kTail = 12;  // tokens; "<think>" and line breaks have fewer
    const auto n = std::min<std::ptrdiff_t>(kTail, static_cast<std::ptrdiff_t>(prompt.size()));
    std::string tail = tokenizer.decode({prompt.end() - n, prompt.end()}, false);
    tail.erase(tail.find_last_not_of(" \r\n") + 1);
    return std::string_view(tail).ends_with("<think>");
}

}  // namespace

GenerationCall parse_chat(const HttpRequest& http, const Json& body, const ServedModel& model, uint64_t random_seed) {
    const Params params(body);
    GenerationCall call;
    read_common(http, params, model, random_seed, call);
    for (const char* name : {"echo", "add_special_tokens"}) {  // templates write the special tokens
        if (params.boolean(name).value_or(false)) {
            throw unsupported(name, "'" + std::string(name) + "' is not supported by this engine for chats.");
        }
    }
    call.shape.token_ids = params.boolean("return_tokens_as_token_ids").value_or(false);
    call.shape.logprobs = params.boolean("logprobs").value_or(false);
    const auto top = params.integer("top_logprobs", 0, kMaxTopLogprobs);
    if (top.has_value() && *top > 0 && !call.shape.logprobs) {
        throw bad_value("top_logprobs", "'top_logprobs' needs 'logprobs' to be true.");
    }
    call.request.sampling.n_logprobs = call.shape.logprobs ? static_cast<int32_t>(top.value_or(0)) : -1;

    call.shape.reasoning = params.boolean("include_reasoning").value_or(true);

    const Json* messages = params.find("messages");
    if (messages == nullptr) {
        throw bad_value("messages", "You must provide a 'messages' parameter.");
    }
    const Json extra = read_template_variables(params);
    const PromptEnd end = read_prompt_end(params);
    const Json* tools = read_tools(params, call);
    call.request.prompts.push_back(model.encode_chat(*messages, tools, &extra, end, model.most_counted()));
    check_prompt(call.request.prompts.front(), model, "messages", true);
    call.shape.output.thinking = opens_thinking(call.request.prompts.front(), *model.tokenizer);

    Constraint constraint;
    read_response_format(params, constraint);
    read_calls(params, tools, call.shape.output.one_call, constraint);
    constraint.format = model.tool_format;
    constraint.thinking = call.shape.output.thinking                     ? Constraint::Thinking::open
                          : model.tokenizer->token_to_id("<think>") >= 0 ? Constraint::Thinking::may
                                                                         : Constraint::Thinking::no;
    constrain(constraint, model, call);
    return call;
}

GenerationCall parse_completion(const HttpRequest& http, const ServedModel& model, uint64_t random_seed) {
    const Json body = parse_body(http);
    const Params params(body);
    GenerationCall call;
    call.shape.chat = false;
    if (const Json* tools = params.find("tools"); tools != nullptr && !tools->empty()) {
        throw unsupported("tools", "'tools' is only supported by /v1/chat/completions.");
    }
    if (params.boolean("continue_final_message").value_or(false)) {
        throw unsupported("continue_final_message",
                          "'continue_final_message' is only supported by /v1/chat/completions.");
    }
    read_common(http, params, model, random_seed, call);
    if (params.find("max_tokens") == nullptr && params.find("max_completion_tokens") == nullptr) {
        call.request.sampling.max_tokens = std::min(kDefaultCompletionTokens, model.max_context);
    }
    // Legacy form: a number, 0 = the chosen token's only.
    call.shape.token_ids = params.boolean("return_tokens_as_token_ids").value_or(false);
    const auto logprobs = params.integer("logprobs", 0, kMaxTopLogprobs);
    call.shape.logprobs = logprobs.has_value();
    call.request.sampling.n_logprobs = static_cast<int32_t>(logprobs.value_or(-1));

    const Json* prompt = params.find("prompt");
    if (prompt == nullptr) {
        throw bad_value("prompt", "You must provide a 'prompt' parameter.");
    }
    const bool add_special = params.boolean("add_special_tokens").value_or(true);
    call.request.prompts = parse_prompts(*prompt, model, add_special, "prompt", kMaxChoices);
    for (const auto& ids : call.request.prompts) {
        check_prompt(ids, model, "prompt", true);
    }
    if (static_cast<int64_t>(call.request.prompts.size()) * call.request.n > kMaxChoices) {
        throw bad_value(
            "n", "'n' times the number of prompts may be at most " + std::to_string(kMaxChoices) + ".");
    }
    Constraint constraint;
    read_response_format(params, constraint);
    constrain(constraint, model, call);
    if (params.boolean("echo").value_or(false)) {
        call.request.sampling.score_prompts = call.shape.logprobs;
        // Text as it was given: ids do not always lead back to it.
        const bool list = prompt->is_array() && !prompt->front().is_number();
        for (size_t i = 0; i < call.request.prompts.size(); ++i) {
            const Json& given = list ? (*prompt)[i] : *prompt;
            call.shape.echo.push_back(given.is_string()
                                          ? given.get<std::string>()
                                          : model.tokenizer->decode(call.request.prompts[i], false));
        }
    }
    return call;
}

GenerationCall parse_embeddings(const HttpRequest& http, const ServedModel& model) {
    const Json body = parse_body(http);
    const Params params(body);
    GenerationCall call;
    call.shape.chat = false;
    call.shape.embeddings = true;
    call.shape.model = checked_model(params, model);
    if (!model.no_embeddings.empty() || model.hidden_size == 0) {
        throw unsupported("model", model.no_embeddings.empty()
                                       ? "This engine's backend computes no embeddings."
                                       : model.no_embeddings);
    }
    refuse_unsupported_embeddings(params);
    const std::string format = params.string("encoding_format").value_or("float");
    if (format != "float" && format != "base64") {
        throw bad_value("encoding_format", "'encoding_format' must be float or base64.");
    }
    call.shape.base64 = format == "base64";
    call.shape.dimensions =
        static_cast<int32_t>(params.integer("dimensions", 1, model.hidden_size).value_or(0));
    const Json* input = params.find("input");
    if (input == nullptr) {
        throw bad_value("input", "You must provide an 'input' parameter.");
    }
    call.request.task = model.pooling;
    const bool add_special = params.boolean("add_special_tokens").value_or(true);
    call.request.prompts = parse_prompts(*input, model, add_special, "input", kMaxInputs);
    for (const auto& ids : call.request.prompts) {
        check_prompt(ids, model, "input", false);
    }
    read_priority(http, params, call.request);
    read_salt(http, params, call.request);
    return call;
}

std::vector<int32_t> parse_tokenize(const Json& body, const ServedModel& model) {
    const Params params(body);
    if (params.find("model") != nullptr) {
        checked_model(params, model);
    }
    if (const Json* messages = params.find("messages")) {
        refuse_unsupported_tokenize(params);
        const Json extra = read_template_variables(params);
        return model.encode_chat(*messages, shown_tools(params), &extra, read_prompt_end(params));
    }
    const auto prompt = params.string("prompt");
    if (!prompt.has_value()) {
        throw bad_value("prompt", "You must provide 'prompt' or 'messages'.");
    }
    const bool add_special = params.boolean("add_special_tokens").value_or(true);
    return encode_text(*prompt, model, add_special, "prompt");
}

}  // namespace llm::engine
