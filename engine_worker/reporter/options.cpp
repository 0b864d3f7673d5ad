#include "engine_worker/reporter/options.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <functional>
#include <string_view>

#include "engine_worker/host_name.hpp"
#include "engine_worker/option_values.hpp"
#include "shared/http_client.hpp"

namespace llm::reporter {
namespace {

std::string set_number(const std::string& text, double low, double high, double& out) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !(value >= low) || !(value <= high)) {
        char range[64];
        std::snprintf(range, sizeof range, "expected a number from %g to %g", low, high);
        return range;
    }
    out = value;
    return "";
}

std::string set_count(const std::string& text, uint32_t high, uint32_t& out) {
    double value = 0;
    std::string why = set_number(text, 1, high, value);
    if (why.empty() && value != std::floor(value)) {
        why = "expected a whole number";
    }
    out = why.empty() ? static_cast<uint32_t>(value) : out;
    return why;
}

// Of any page.
std::string set_url(const std::string& text, std::string& out) {
    out = text;
    return check_http_url(text);
}

// http(s)://host[:port] and nothing behind it.
std::string set_base_url(std::string text, std::string& out) {
    while (text.ends_with('/')) {
        text.pop_back();
    }
    if (!is_engine_url(text)) {
        return "expected http://host:port without a path, or https://…; at most 255 bytes";
    }
    out = text;
    return "";
}

std::string read_key(const std::string& path, std::string& out) {
    std::ifstream file(path);
    std::getline(file, out);
    while (!out.empty() && (out.back() == '\r' || out.back() == ' ')) {
        out.pop_back();
    }
    return out.empty() ? "the file " + path + " cannot be read, or its first line is empty" : "";
}

struct OptionSpec {
    std::string_view name;
    std::string_view value;
    std::string_view help;
    std::function<std::string(Options&, const std::string&)> set;  // none: a switch
};

const std::vector<OptionSpec>& specs() {
    static const std::vector<OptionSpec> all = {
        {"--engine", "KIND", "what runs there; see below",
         [](Options& o, const std::string& v) {
             o.adapter = find_adapter(v);
             return o.adapter != nullptr ? std::string()
                                         : "\"" + v.substr(0, 40) + "\" is not known; known are " +
                                               std::string(adapter_names());
         }},
        {"--url", "URL", "http://HOST:PORT of the engine",
         [](Options& o, const std::string& v) { return set_base_url(v, o.url); }},
        {"--redis", "URL", "redis://…, rediss://… or unix:…: report there",
         [](Options& o, const std::string& v) { return parse_redis_url(v, o.redis); }},
        {"--prefix", "TEXT", "before every Redis key and channel [llm:]",
         [](Options& o, const std::string& v) { return set_text(v, 127, o.prefix); }},
        {"--id", "NAME", "name in reports [HOST:PORT of the engine]",
         [](Options& o, const std::string& v) { return set_report_name(v, o.id); }},
        {"--advertise-url", "URL", "http(s)://HOST:PORT under which gateways reach the engine [--url]",
         [](Options& o, const std::string& v) { return set_base_url(v, o.advertise_url); }},
        {"--org", "NAME", "organisation that owns the engine [none]",
         [](Options& o, const std::string& v) { return set_report_name(v, o.org); }},
        {"--model", "NAME[,NAME]", "the models it serves [as it lists them]",
         [](Options& o, const std::string& v) { return set_names(v, o.models); }},
        {"--max-running", "N", "requests it runs at once [as it says, else its usual number]",
         [](Options& o, const std::string& v) { return set_count(v, 1'000'000, o.max_running); }},
        {"--max-context", "N", "tokens of prompt and answer [as it says]",
         [](Options& o, const std::string& v) { return set_count(v, 100'000'000, o.max_context); }},
        {"--interval", "S", "seconds between two looks at the engine [0.5]",
         [](Options& o, const std::string& v) { return set_number(v, 0.05, 60, o.interval_s); }},
        {"--timeout", "S", "seconds to wait for each of its answers [2]",
         [](Options& o, const std::string& v) { return set_number(v, 0.05, 60, o.timeout_s); }},
        {"--fail-after", "S", "report `failed` when nobody has listened there for so long [5]",
         [](Options& o, const std::string& v) { return set_number(v, 0, 3600, o.fail_after_s); }},
        {"--metrics-url", "URL", "where its metrics are, if elsewhere",
         [](Options& o, const std::string& v) { return set_url(v, o.metrics_url); }},
        {"--api-key-file", "FILE", "a key that the engine wants, in the first line",
         [](Options& o, const std::string& v) { return read_key(v, o.api_key); }},
        {"--ca-file", "FILE", "trust these certificates (PEM) for https [the system's]",
         [](Options& o, const std::string& v) {
             o.ca_file = v;
             return std::ifstream(v) ? std::string() : "the file " + v + " cannot be read";
         }},
        {"--once", "", "print the report that would be sent, and end; needs no Redis", {}},
    };
    return all;
}

std::string host_and_port(const std::string& url) {
    const std::string out = url.substr(url.find("://") + 3);
    const size_t end = out.starts_with('[') ? out.find(']') + 1 : std::min(out.find(':'), out.size());
    const std::string_view host = std::string_view(out).substr(0, end);
    if (!host.starts_with("127.") && host != "localhost" && host != "[::1]") {
        return out;
    }
    return host_name() + out.substr(end);  // many hosts have an engine at their own 127.0.0.1
}

}  // namespace

std::string parse_options(const std::vector<std::string>& arguments, Options& out) {
    bool has_redis = false;
    for (size_t i = 0; i < arguments.size(); ++i) {
        std::string name = arguments[i];
        if (name == "--help" || name == "-h" || name == "--version") {
            (name == "--version" ? out.version : out.help) = true;
            return "";
        }
        std::string value;
        const size_t equals = name.find('=');
        const bool joined = name.starts_with("--") && equals != std::string::npos;
        if (joined) {
            value = name.substr(equals + 1);
            name.resize(equals);
        }
        const auto spec = std::find_if(specs().begin(), specs().end(),
                                       [&](const OptionSpec& one) { return one.name == name; });
        if (spec == specs().end()) {
            return "unknown option " + name + "; --help lists all";
        }
        if (!spec->set) {
            if (joined) {
                return name + " takes no value";
            }
            out.once = true;
            continue;
        }
        if (!joined && ++i >= arguments.size()) {
            return name + " needs a value: " + std::string(spec->value);
        }
        if (const std::string why = spec->set(out, joined ? value : arguments[i]); !why.empty()) {
            return name + ": " + why;
        }
        has_redis = has_redis || name == "--redis";
    }
    if (out.adapter == nullptr) {
        return "--engine is missing; known are " + std::string(adapter_names());
    }
    if (out.url.empty()) {
        return "--url is missing; expected http://HOST:PORT of the engine";
    }
    if (!has_redis && !out.once) {
        return "--redis is missing; expected redis://HOST:PORT, where the gateways' llm_redis points";
    }
    out.advertise_url = out.advertise_url.empty() ? out.url : out.advertise_url;
    out.id = out.id.empty() ? host_and_port(out.url).substr(0, 127) : out.id;
    return "";
}

std::string usage_text() {
    std::string text =
        "llm-reporter " LLM_VERSION ": reports to gateways for an engine that does not do it itself\n\n";
    const auto add = [&text](std::string line, std::string_view help) {
        line.resize(std::max<size_t>(line.size() + 2, 30), ' ');
        text += line + std::string(help) + "\n";
    };
    for (const OptionSpec& spec : specs()) {
        add("  " + std::string(spec.name) + " " + std::string(spec.value), spec.help);
    }
    text += "  --help, --version\n\nKinds of engine:\n";
    for (const Adapter* adapter : adapters()) {
        add("  " + std::string(adapter->kind), adapter->title);
    }
    return text;
}

}  // namespace llm::reporter
