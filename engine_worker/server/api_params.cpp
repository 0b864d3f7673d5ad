#include "engine_worker/server/api_params.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <span>
#include <string_view>
#include <utility>

#include "engine_worker/server/api_error.hpp"

namespace llm::engine {
namespace {

constexpr size_t kMaxStops = 16;
constexpr size_t kMaxStopBytes = 1024;
constexpr size_t kMaxBias = 1024;

ApiError wrong_type(const std::string& name, const char* expected, const Json& value) {
    return {400, "invalid_request_error", "invalid_type",
            "Invalid type for '" + name + "': expected " + expected + ", but got " +
                (value.is_null() ? "null" : std::string("a value of type ") + value.type_name()) + ".",
            name};
}

std::string range_text(const std::string& name, const NumberRange& range) {
    const auto text = [](double v) {
        std::array<char, 32> buffer;
        return std::string(buffer.data(), std::to_chars(buffer.data(), buffer.data() + buffer.size(), v).ptr);
    };
    const std::string high = text(range.high);
    return "'" + name + "' must be " +
           (range.above ? "greater than " + text(range.low) + " and at most " + high
                        : "between " + text(range.low) + " and " + high) +
           ".";
}

std::vector<std::string> parse_stop(const Params& params) {
    std::vector<std::string> stops;
    const Json* value = params.find("stop");
    if (value == nullptr) {
        return stops;
    }
    const auto add = [&stops](const Json& one) {
        if (!one.is_string()) {
            throw wrong_type("stop", "a string or an array of strings", one);
        }
        const auto& text = one.get_ref<const std::string&>();
        if (text.empty() || text.size() > kMaxStopBytes) {
            throw bad_value("stop",
                            "A stop string must have 1 to " + std::to_string(kMaxStopBytes) + " bytes.");
        }
        stops.push_back(text);
    };
    if (value->is_array()) {
        if (value->size() > kMaxStops) {
            throw bad_value("stop", "At most " + std::to_string(kMaxStops) + " stop strings are supported.");
        }
        for (const Json& one : *value) {
            add(one);
        }
    } else {
        add(*value);
    }
    return stops;
}

std::vector<std::pair<int32_t, float>> parse_bias(const Params& params, int32_t vocab_size) {
    std::vector<std::pair<int32_t, float>> out;
    const Json* value = params.find("logit_bias");
    if (value == nullptr) {
        return out;
    }
    if (!value->is_object()) {
        throw wrong_type("logit_bias", "an object", *value);
    }
    if (value->size() > kMaxBias) {
        throw bad_value("logit_bias",
                        "'logit_bias' may have at most " + std::to_string(kMaxBias) + " entries.");
    }
    for (const auto& [key, bias] : value->items()) {
        int32_t token = -1;
        const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
        if (error != std::errc() || end != key.data() + key.size() || token < 0 || token >= vocab_size) {
            throw bad_value("logit_bias", "'logit_bias' names a token that does not exist: '" + key + "'; " +
                                              token_range(vocab_size));
        }
        if (!bias.is_number() || !(std::abs(bias.get<double>()) <= 100.0)) {
            throw bad_value("logit_bias", "Values of 'logit_bias' must be numbers between -100 and 100.");
        }
        out.emplace_back(token, bias.get<float>());
    }
    return out;
}

std::vector<int32_t> parse_stop_tokens(const Params& params, int32_t vocab_size) {
    std::vector<int32_t> out;
    const Json* value = params.find("stop_token_ids");
    if (value == nullptr) {
        return out;
    }
    if (!value->is_array() || value->size() > kMaxBias) {
        throw wrong_type("stop_token_ids", "an array of token ids", *value);
    }
    for (const Json& one : *value) {
        if (!is_token_id(one, vocab_size)) {
            throw bad_value("stop_token_ids",
                            "'stop_token_ids' names a token that does not exist; " + token_range(vocab_size));
        }
        out.push_back(one.get<int32_t>());
    }
    return out;
}

// Fields that would change the answer; each with the value, if any, that asks for what we do anyway.
struct Unsupported {
    const char* name;
    const char* neutral;
};

constexpr Unsupported kUnsupported[] = {
    {"allowed_token_ids", "[]"},
    {"audio", "{}"},
    {"bad_words", "[]"},
    {"chat_template", "\"\""},
    {"dry_multiplier", "0"},
    {"ebnf", "\"\""},
    {"function_call", "\"none\""},
    {"functions", "[]"},
    {"grammar", "\"\""},
    {"guided_choice", "[]"},
    {"guided_grammar", "\"\""},
    {"guided_json", "{}"},
    {"guided_regex", "\"\""},
    {"json_schema", "{}"},
    {"kv_transfer_params", "{}"},
    {"length_penalty", "1"},
    {"logits_processors", "[]"},
    {"mirostat", "0"},
    {"modalities", "[\"text\"]"},
    {"prompt_embeds", "\"\""},
    {"prompt_logprobs", "false"},
    {"regex", "\"\""},
    {"return_token_ids", "false"},
    {"separate_reasoning", "true"},
    {"skip_special_tokens", "true"},
    {"stop_regex", "[]"},
    {"structural_tag", "\"\""},
    {"structured_outputs", "{}"},
    {"suffix", "\"\""},
    {"tfs_z", "1"},
    {"thinking_token_budget", "-1"},
    {"top_a", "0"},
    {"truncate_prompt_tokens", "-1"},
    {"typical_p", "1"},
    {"use_beam_search", "false"},
    {"web_search_options", "false"},
    {"xtc_probability", "0"},
};

// Of POST /v1/embeddings.
constexpr Unsupported kUnsupportedEmbeddings[] = {
    {"chat_template", "\"\""}, {"embed_dtype", "\"float32\""}, {"endianness", "\"little\""},
    {"messages", "[]"},        {"normalize", "true"},          {"truncate_prompt_tokens", "-1"},
};

// Of POST /tokenize with a chat: what would change its prompt.
constexpr Unsupported kUnsupportedTokenize[] = {
    {"add_special_tokens", "false"},
    {"chat_template", "\"\""},
};

void refuse(const Params& params, std::span<const Unsupported> fields) {
    for (const auto& [name, neutral] : fields) {
        const Json* value = params.find(name);
        const bool off = value != nullptr && value->is_boolean() && !value->get<bool>() &&
                         std::string_view(neutral) != "true";
        if (value != nullptr && !off && *value != Json::parse(neutral)) {
            throw unsupported(name);
        }
    }
}

}  // namespace

bool is_token_id(const Json& value, int32_t vocab_size) {
    // Unsigned first: a number beyond int64 is not one that wraps.
    return (value.is_number_unsigned() && value.get<uint64_t>() < static_cast<uint64_t>(vocab_size)) ||
           (value.is_number_integer() && !value.is_number_unsigned() && value.get<int64_t>() >= 0 &&
            value.get<int64_t>() < vocab_size);
}

std::string token_range(int32_t vocab_size) {
    return "token ids of this model are whole numbers from 0 to " + std::to_string(vocab_size - 1) + ".";
}

const Json* Params::find(const char* name) const {
    const auto at = body_.find(name);
    return at == body_.end() || at->is_null() ? nullptr : &*at;
}

std::optional<double> Params::number(const char* name, double low, double high) const {
    return number(name, NumberRange{low, high});
}

std::optional<double> Params::number(const char* name, const NumberRange& range) const {
    const Json* value = find(name);
    if (value == nullptr) {
        return std::nullopt;
    }
    if (!value->is_number()) {
        throw wrong_type(prefix_ + name, "a number", *value);
    }
    const double v = value->get<double>();
    if (!range.contains(v)) {
        throw bad_value(prefix_ + name, range_text(prefix_ + name, range));
    }
    return v;
}

std::optional<int64_t> Params::integer(const char* name, int64_t low, int64_t high) const {
    const Json* value = find(name);
    if (value == nullptr) {
        return std::nullopt;
    }
    const bool whole = value->is_number_float() && std::floor(value->get<double>()) == value->get<double>() &&
                       std::abs(value->get<double>()) < 9e15;
    if (!value->is_number_integer() && !whole) {
        throw wrong_type(prefix_ + name, "an integer", *value);
    }
    const bool huge = value->is_number_unsigned() &&
                      value->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    const int64_t v = whole ? static_cast<int64_t>(value->get<double>()) : value->get<int64_t>();
    if (huge || v < low || v > high) {
        throw bad_value(prefix_ + name, "'" + prefix_ + name + "' must be between " + std::to_string(low) +
                                            " and " + std::to_string(high) + ".");
    }
    return v;
}

std::optional<bool> Params::boolean(const char* name) const {
    const Json* value = find(name);
    if (value == nullptr) {
        return std::nullopt;
    }
    if (!value->is_boolean()) {
        throw wrong_type(prefix_ + name, "a boolean", *value);
    }
    return value->get<bool>();
}

std::optional<std::string> Params::string(const char* name) const {
    const Json* value = find(name);
    if (value == nullptr) {
        return std::nullopt;
    }
    if (!value->is_string()) {
        throw wrong_type(prefix_ + name, "a string", *value);
    }
    return value->get<std::string>();
}

Sampling parse_sampling(const Params& params, const SamplingLimits& limits, uint64_t random_seed) {
    constexpr int64_t kIntMax = std::numeric_limits<int32_t>::max();
    constexpr int64_t kSeedMin = std::numeric_limits<int64_t>::min();
    constexpr int64_t kSeedMax = std::numeric_limits<int64_t>::max();
    const GenerationDefaults& defaults = limits.defaults;
    Sampling out;
    const auto number = [&params](const char* name, const NumberRange& range, float absent) {
        return static_cast<float>(params.number(name, range).value_or(absent));
    };
    out.temperature = number("temperature", kTemperature, defaults.temperature);
    out.top_p = number("top_p", kTopP, defaults.top_p);
    out.top_k = static_cast<int32_t>(
        std::max<int64_t>(params.integer("top_k", kLeastTopK, kIntMax).value_or(defaults.top_k), 0));
    out.min_p = number("min_p", kMinP, defaults.min_p);
    out.repetition_penalty = number("repetition_penalty", kRepetitionPenalty, defaults.repetition_penalty);
    out.presence_penalty = number("presence_penalty", kPenalty, 0);
    out.frequency_penalty = number("frequency_penalty", kPenalty, 0);
    const auto seed = params.integer("seed", kSeedMin, kSeedMax);
    out.seed = seed.has_value() ? static_cast<uint64_t>(*seed) : random_seed;
    out.logit_bias = parse_bias(params, limits.vocab_size);
    out.stop = parse_stop(params);
    out.stop_tokens = parse_stop_tokens(params, limits.vocab_size);
    out.include_stop = params.boolean("include_stop_str_in_output").value_or(false);
    out.ignore_eos = params.boolean("ignore_eos").value_or(false);

    const auto max_tokens = params.integer("max_tokens", limits.least_tokens, kIntMax);
    const auto max_completion = params.integer("max_completion_tokens", 1, kIntMax);
    const int64_t usual = defaults.max_tokens > 0 ? defaults.max_tokens : limits.max_context;
    const int64_t limit = max_completion.value_or(max_tokens.value_or(usual));
    out.max_tokens = static_cast<int32_t>(std::min<int64_t>(limit, limits.max_context));
    const bool said = max_tokens.has_value() || max_completion.has_value();
    const int32_t most = said ? out.max_tokens : limits.max_context;
    out.min_tokens = static_cast<int32_t>(params.integer("min_tokens", 0, most).value_or(0));
    out.max_tokens = std::max(out.max_tokens, out.min_tokens);
    return out;
}

void refuse_unsupported(const Params& params) {
    refuse(params, kUnsupported);
}

void refuse_unsupported_embeddings(const Params& params) {
    refuse(params, kUnsupportedEmbeddings);
}

void refuse_unsupported_tokenize(const Params& params) {
    refuse(params, kUnsupportedTokenize);
}

}  // namespace llm::engine
