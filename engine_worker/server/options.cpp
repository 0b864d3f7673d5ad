#include "engine_worker/server/options.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <string_view>

#include "engine_worker/option_values.hpp"

namespace llm::engine {
namespace {

std::string set_integer(const std::string& text, int64_t low, int64_t high, int64_t& out) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    if (error != std::errc() || end != text.data() + text.size() || out < low || out > high) {
        return "expected a whole number from " + std::to_string(low) + " to " + std::to_string(high);
    }
    return "";
}

template <typename T>
std::string set_integer(const std::string& text, int64_t low, int64_t high, T& out) {
    int64_t value = 0;
    std::string why = set_integer(text, low, high, value);
    out = why.empty() ? static_cast<T>(value) : out;
    return why;
}

std::string set_number(const std::string& text, double& out) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !(value >= 0) || !std::isfinite(value)) {
        return "expected a number that is not negative";
    }
    out = value;
    return "";
}

std::string set_choice(const std::string& text, std::initializer_list<std::string_view> allowed,
                       std::string& out) {
    std::string list;
    for (const std::string_view one : allowed) {
        if (text == one) {
            out = text;
            return "";
        }
        list += list.empty() ? "" : ", ";
        list += one;
    }
    return "expected one of " + list;
}

// "base=5,sequence=0.03,context=0.00003,prefill=0.03,reply=100"
std::string set_sim(const std::string& text, SimOptions& out) {
    for (size_t at = 0; at <= text.size();) {
        const size_t comma = std::min(text.find(',', at), text.size());
        const std::string part = text.substr(at, comma - at);
        at = comma + 1;
        const size_t equals = std::min(part.find('='), part.size());
        const std::string key = part.substr(0, equals);
        double value = 0;
        if (equals >= part.size() || !set_number(part.substr(equals + 1), value).empty()) {
            return "expected NAME=NUMBER, separated by commas";
        }
        if (key == "base") {
            out.base_ms = value;
        } else if (key == "sequence") {
            out.per_sequence_ms = value;
        } else if (key == "context") {
            out.per_context_ms = value;
        } else if (key == "prefill") {
            out.per_prefill_ms = value;
        } else if (key == "reply" && value <= 1e9) {
            out.reply_tokens = static_cast<int32_t>(value);
        } else {
            return "the names are base, sequence, context, prefill (milliseconds) and reply (tokens)";
        }
    }
    return "";
}

std::string read_sim_text(const std::string& path, std::string& out) {
    std::ifstream file(path);
    out.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    return file && !out.empty() ? "" : "cannot read the file, or it is empty";
}

struct OptionSpec {
    std::string_view name;
    std::string_view value;
    std::string_view help;
    std::function<std::string(Options&, const std::string&)> set;
};

const std::vector<OptionSpec>& specs() {
    constexpr int64_t kMillion = 1'000'000;
    constexpr int64_t kInt = std::numeric_limits<int32_t>::max();
    static const std::vector<OptionSpec> all = {
        {"--model", "DIR", "Hugging Face model directory; with --backend sim any name",
         [](Options& o, const std::string& v) { return set_text(v, 4096, o.model); }},
        {"--served-model-name", "NAME[,NAME]", "names that clients use [last part of DIR]",
         [](Options& o, const std::string& v) { return set_names(v, o.served_names); }},
        {"--chat-template", "FILE", "a Jinja template for chats, with and without tools [the model's]",
         [](Options& o, const std::string& v) { return set_text(v, 4096, o.chat_template); }},
        {"--generation-config", "NAME",
         "auto: requests that say nothing else take temperature and the like from DIR; none [auto]",
         [](Options& o, const std::string& v) { return set_choice(v, {"auto", "none"}, o.generation_config); }},
        {"--listen", "HOST:PORT|unix:PATH", "where to serve; port 0 = any [127.0.0.1:8000]",
         [](Options& o, const std::string& v) { return set_text(v, 4096, o.listen); }},
        {"--advertise", "URL", "http://HOST:PORT under which gateways reach this engine [from --listen]",
         [](Options& o, const std::string& v) { return set_text(v, 255, o.advertise); }},
        {"--redis", "URL", "redis://…, rediss://… or unix:…: report there [no reports]",
         [](Options& o, const std::string& v) {
             o.redis = v;
             return parse_redis_url(v, o.redis_url);
         }},
        {"--prefix", "TEXT", "before every Redis key and channel [llm:]",
         [](Options& o, const std::string& v) { return set_text(v, 127, o.prefix); }},
        {"--id", "NAME", "name in reports [HOSTNAME:PORT]",
         [](Options& o, const std::string& v) { return set_report_name(v, o.id); }},
        {"--org", "NAME", "organisation that owns this engine [none]",
         [](Options& o, const std::string& v) { return set_report_name(v, o.org); }},
        {"--backend", "NAME", "auto, cuda, cpu or sim [auto]",
         [](Options& o, const std::string& v) {
             return set_choice(v, {"auto", "cuda", "cpu", "sim"}, o.backend);
         }},
        {"--dtype", "NAME", "CPU weights: auto, f32, bf16, int8 [auto]",
         [](Options& o, const std::string& v) {
             return set_choice(v, {"auto", "f32", "bf16", "int8"}, o.compute.dtype);
         }},
        {"--gpu-memory", "PART", "of the GPU's memory to use, 0.1 to 1 [0.9]",
         [](Options& o, const std::string& v) {
             double part = 0;
             if (!set_number(v, part).empty() || part < 0.1 || part > 1) {
                 return std::string("expected a number from 0.1 to 1");
             }
             o.compute.gpu_memory = part;
             return std::string();
         }},
        {"--threads", "N", "CPU threads [all]",
         [](Options& o, const std::string& v) { return set_integer(v, 0, 4096, o.compute.threads); }},
        {"--max-running", "N", "sequences at once [64, on a GPU 256]",
         [](Options& o, const std::string& v) { return set_integer(v, 1, 8192, o.max_running); }},
        {"--max-waiting", "N", "sequences in line before 429 [256]",
         [](Options& o, const std::string& v) { return set_integer(v, 0, kMillion, o.max_waiting); }},
        {"--kv-tokens", "N", "KV cache in tokens [the backend's choice]",
         [](Options& o, const std::string& v) { return set_integer(v, 16, kInt, o.compute.kv_tokens); }},
        {"--max-context", "N", "tokens of prompt and answer [the model's]",
         [](Options& o, const std::string& v) { return set_integer(v, 16, kInt, o.compute.max_context); }},
        {"--max-step-tokens", "N",
         "tokens computed in one step [512, on a GPU 4096, and room for all sequences]",
         [](Options& o, const std::string& v) {
             return set_integer(v, 64, kMillion, o.compute.max_step_tokens);
         }},
        {"--step-ms", "MS", "longest step while text is generated [1.5 times a step without prompts, 30 at least]",
         [](Options& o, const std::string& v) { return set_number(v, o.step_target_ms); }},
        {"--drain-timeout", "S", "seconds that SIGTERM waits for running requests [120]",
         [](Options& o, const std::string& v) { return set_number(v, o.drain_timeout); }},
        {"--drain-grace", "S",
         "seconds that a draining engine takes requests of gateways that have not heard [1 with --redis, "
         "else 0]",
         [](Options& o, const std::string& v) { return set_number(v, o.drain_grace.emplace()); }},
        {"--max-body", "BYTES", "largest request body [33554432]",
         [](Options& o, const std::string& v) { return set_integer(v, 1024, 1LL << 40, o.max_body); }},
        {"--api-key-file", "FILE",
         "keys, one per line, of which clients must send one as Bearer token [open to all]",
         [](Options& o, const std::string& v) { return o.api_keys.load(v); }},
        {"--allowed-origins", "LIST", "web pages that may use it from a browser: *, none or origins [*]",
         [](Options& o, const std::string& v) { return o.origins.parse(v); }},
        {"--sim", "LIST",
         "cost of a simulated step in ms: base=5,sequence=0.03,context=0.00003,prefill=0.03,reply=N",
         [](Options& o, const std::string& v) { return set_sim(v, o.sim); }},
        {"--sim-text", "FILE", "text that the simulated model answers with",
         [](Options& o, const std::string& v) { return read_sim_text(v, o.sim.text); }},
    };
    return all;
}

}  // namespace

std::string parse_options(const std::vector<std::string>& arguments, Options& out) {
    for (size_t i = 0; i < arguments.size(); ++i) {
        std::string name = arguments[i];
        if (name == "--help" || name == "-h") {
            out.help = true;
            return "";
        }
        if (name == "--version") {
            out.version = true;
            return "";
        }
        std::string value;
        const size_t equals = name.find('=');
        const bool joined = name.rfind("--", 0) == 0 && equals != std::string::npos;
        if (joined) {
            value = name.substr(equals + 1);
            name.resize(equals);
        }
        const OptionSpec* spec = nullptr;
        for (const OptionSpec& one : specs()) {
            spec = one.name == name ? &one : spec;
        }
        if (spec == nullptr) {
            return "unknown option " + name + "; --help lists all";
        }
        if (!joined && ++i >= arguments.size()) {
            return name + " needs a value: " + std::string(spec->value);
        }
        if (const std::string why = spec->set(out, joined ? value : arguments[i]); !why.empty()) {
            return name + ": " + why;
        }
    }
    if (out.model.empty()) {
        return "--model is missing; --help lists all options";
    }
    return "";
}

std::string usage_text() {
    std::string text = "llm-engine " LLM_VERSION ": serves a language model over the OpenAI HTTP API\n\n";
    for (const OptionSpec& spec : specs()) {
        std::string line = "  " + std::string(spec.name) + " " + std::string(spec.value);
        line.resize(std::max<size_t>(line.size() + 2, 38), ' ');
        text += line + std::string(spec.help) + "\n";
    }
    return text + "  --help, --version\n";
}

}  // namespace llm::engine
