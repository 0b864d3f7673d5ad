#include "engine_worker/reporter/engine_probe.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "shared/engine_report.hpp"
#include "shared/json.hpp"

namespace llm::reporter {
namespace {

using nlohmann::json;

// Labels that tell workers of one engine apart, which all report the engine's numbers.
constexpr std::string_view kRankLabels[] = {"tp_rank", "pp_rank", "moe_ep_rank", "pid"};

bool matches(const MetricRule& rule, const Sample& sample) {
    // SGLang: beside a gauge's total, whose label is empty, stands its breakdown by priority. Of its counters
    // every request is in one series only.
    const bool gauge = rule.field == Field::running || rule.field == Field::waiting;
    return (!gauge || sample.label("priority").empty()) &&
           (rule.label.empty() || sample.label(rule.label) == rule.value);
}

std::string group_of(const Sample& sample) {
    std::string out;
    for (const auto& [name, value] : sample.labels) {
        if (std::find(std::begin(kRankLabels), std::end(kRankLabels), name) == std::end(kRankLabels)) {
            out += name + '\0' + value + '\0';
        }
    }
    return out;
}

std::optional<double> value_of(const MetricRule& rule, std::string_view metric,
                               const std::vector<Sample>& samples) {
    std::map<std::string, double> groups;
    for (const Sample& sample : samples) {
        if (sample.name != metric || !matches(rule, sample)) {
            continue;
        }
        if (!std::isfinite(sample.value) || sample.value < 0) {
            return std::nullopt;
        }
        double& highest = groups.emplace(group_of(sample), 0).first->second;
        highest = std::max(highest, sample.value);
    }
    if (groups.empty()) {
        return std::nullopt;
    }
    double sum = 0;
    for (const auto& [group, value] : groups) {
        sum = rule.field == Field::started ? std::max(sum, value) : sum + value;
    }
    return rule.field == Field::kv_usage ? std::min(1.0, sum / static_cast<double>(groups.size())) : sum;
}

// The number above 0 at `pointer`, or the sum of those in an array; nothing if one is not there.
std::optional<double> number_at(const json& content, std::string_view pointer) {
    constexpr std::string_view kEvery = "/*";
    const size_t every = pointer.find(kEvery);
    const json::json_pointer first{std::string(pointer.substr(0, every))};
    if (!content.contains(first)) {
        return std::nullopt;
    }
    const json& value = content[first];
    if (every == std::string_view::npos) {
        const double number = value.is_number() ? value.get<double>() : 0;
        return number > 0 && std::isfinite(number) ? std::optional(number) : std::nullopt;
    }
    std::optional<double> sum;
    for (const json& element : value.is_array() ? value : json::array()) {
        const std::optional<double> one = number_at(element, pointer.substr(every + kEvery.size()));
        if (!one) {
            return std::nullopt;
        }
        sum = sum.value_or(0) + *one;
    }
    return sum;
}

bool has(const std::vector<Sample>& samples, std::string_view metric) {
    return std::any_of(samples.begin(), samples.end(),
                       [metric](const Sample& sample) { return sample.name == metric; });
}

// Whether the text may be of this engine before its first request: it is no other engine's.
bool may_be_new(const Adapter& adapter, const std::vector<Sample>& samples) {
    return adapter.late_metrics &&
           std::none_of(adapters().begin(), adapters().end(),
                        [&](const Adapter* other) { return has(samples, other->signature); });
}

// Of a page: "answers 404; " and what to do.
std::string refusal(int status, std::string_view hint) {
    if (status == 401 || status == 403) {
        hint = "it wants a key (--api-key-file), or another one";
    }
    return "answers " + std::to_string(status) + (hint.empty() ? "" : "; ") + std::string(hint);
}

std::string first_line(std::string_view text) {
    std::string out(text.substr(0, std::min<size_t>(text.find('\n'), 80)));
    for (char& c : out) {
        c = static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f ? '?' : c;
    }
    return out;
}

}  // namespace

std::string read_metrics(const Adapter& adapter, std::string_view text, Observation& out) {
    if (adapter.late_metrics && text.find_first_not_of(" \t\r\n") == std::string_view::npos) {
        return "";
    }
    std::vector<Sample> samples;
    if (const std::string why = parse_metrics_text(text, samples); !why.empty()) {
        return why;
    }
    if (!has(samples, adapter.signature) && !may_be_new(adapter, samples)) {
        return "there is no " + std::string(adapter.signature) + ": not the metrics of " +
               std::string(adapter.title) +
               (adapter.metrics_hint.empty() ? "" : " (" + std::string(adapter.metrics_hint) + ")");
    }
    for (const MetricRule& rule : adapter.metrics) {
        if (out[rule.field]) {
            continue;
        }
        std::optional<double> value = value_of(rule, rule.metric, samples);
        if (value && !rule.minus.empty()) {
            const std::optional<double> off = value_of(rule, rule.minus, samples);
            value = off ? std::optional(std::max(0.0, *value - *off)) : std::nullopt;
        }
        out[rule.field] = value;
    }
    // Half of the two says nothing about speed, and an old decode count beside new seconds would say
    // something false.
    if (!out[Field::user_seconds]) {
        out[Field::decode_tokens].reset();
    }
    std::set<std::string_view> replicas;
    for (const Sample& sample : samples) {
        if (sample.name == adapter.signature) {
            replicas.insert(sample.label(adapter.replica_label));
        }
    }
    if (replicas.size() > 1 && !adapter.replica_label.empty() && !out[Field::max_running]) {
        out[Field::max_running] = static_cast<double>(replicas.size()) * adapter.max_running;
    }
    return "";
}

std::string read_models(std::string_view text, std::vector<std::string>& out) {
    const json content = json::parse(text, nullptr, false);
    const auto data = content.is_object() ? content.find("data") : content.end();
    if (!content.is_object() || data == content.end() || !data->is_array()) {
        return "not a list of models but \"" + first_line(text) + "\"";
    }
    out.clear();
    for (const json& item : *data) {
        const auto id = item.is_object() ? item.find("id") : item.end();
        if (item.is_object() && id != item.end() && id->is_string() &&
            !id->get_ref<const std::string&>().empty()) {
            out.push_back(id->get<std::string>());
        }
    }
    return out.empty() ? "the list of models is empty" : "";
}

std::string leave_out_models(std::vector<std::string>& models) {
    const size_t all = models.size();
    std::erase_if(models, [](const std::string& name) { return !is_model_name(name); });
    models.resize(std::min(models.size(), kMaxModels));
    return models.size() == all
               ? ""
               : std::to_string(all - models.size()) + " of " + std::to_string(all) +
                     " models are left out: a report holds " + std::to_string(kMaxModels) +
                     " names of at most " + std::to_string(kMaxModelBytes) + " bytes; choose with --model";
}

void read_facts(const Adapter& adapter, std::string_view path, std::string_view text, Observation& out) {
    const json content = json::parse(text, nullptr, false);
    for (const JsonRule& rule : adapter.facts) {
        if (rule.path == path && !out[rule.field] && !content.is_discarded()) {
            out[rule.field] = number_at(content, rule.pointer);
        }
    }
}

EngineProbe::EngineProbe(const Adapter& adapter, const ProbeOptions& options)
    : adapter_(adapter),
      options_(options),
      client_({.timeout_s = options.timeout_s,
               .connect_timeout_s = options.timeout_s,
               .ca_file = options.ca_file}) {}

// False when there was no answer; `out` then says why.
bool EngineProbe::get(const std::string& url, Observation& out, HttpReply& reply) {
    HttpRequest request;
    request.url = url;
    if (!options_.api_key.empty()) {
        request.headers.emplace_back("Authorization", "Bearer " + options_.api_key);
    }
    const std::string why = client_.send(request, reply);
    if (why.empty()) {
        return true;
    }
    out.health = client_.unreachable() ? Health::absent : Health::silent;
    out.why = url + ": " + why;
    return false;
}

bool EngineProbe::ask_health(Observation& out) {
    HttpReply reply;
    const std::string url = options_.url + std::string(adapter_.health_path);
    if (!get(url, out, reply)) {
        return false;
    }
    if (reply.status >= 500) {
        out.health = Health::not_ready;
        out.why = url + " answers " + std::to_string(reply.status);
        return false;
    }
    // versions differ in whether they have the page at all; what else they answer decides
    return true;
}

bool EngineProbe::ask_metrics(Observation& out) {
    if (adapter_.metrics_path.empty()) {
        return true;
    }
    HttpReply reply;
    const std::string url = options_.metrics_url.empty() ? options_.url + std::string(adapter_.metrics_path)
                                                         : options_.metrics_url;
    if (!get(url, out, reply)) {
        return false;
    }
    std::string why = reply.status == 200 ? read_metrics(adapter_, reply.body, out)
                                          : refusal(reply.status, adapter_.metrics_hint);
    if (why.empty()) {
        return true;
    }
    out.health = reply.status == 503 ? Health::not_ready : Health::strange;
    out.why = url + ": " + why;
    return false;
}

bool EngineProbe::ask_facts(Observation& out) {
    Observation facts;
    facts.models = options_.models;
    if (adapter_.rare_health && !ask_health(out)) {
        return false;
    }
    std::vector<std::string_view> paths;
    if (facts.models.empty()) {
        paths.push_back(adapter_.models_path);
    }
    for (const JsonRule& rule : adapter_.facts) {
        paths.push_back(rule.path);
    }
    std::set<std::string_view> asked;
    for (const std::string_view path : paths) {
        const bool of_use =
            (path == adapter_.models_path && facts.models.empty()) ||
            std::any_of(adapter_.facts.begin(), adapter_.facts.end(),
                        [&](const JsonRule& rule) { return rule.path == path && !facts[rule.field]; });
        if (!of_use || !asked.insert(path).second) {
            continue;
        }
        HttpReply reply;
        const std::string url = options_.url + std::string(path);
        if (!get(url, out, reply)) {
            return false;
        }
        if (reply.status == 200) {
            read_facts(adapter_, path, reply.body, facts);
        }
        if (path != adapter_.models_path || !options_.models.empty()) {
            continue;  // a fact that is not to be had is not missed
        }
        std::string why =
            reply.status == 200 ? read_models(reply.body, facts.models) : refusal(reply.status, "");
        facts.note = leave_out_models(facts.models);
        if (why.empty() && facts.models.empty()) {
            why = facts.note;
        }
        if (!why.empty()) {
            out.health = reply.status == 503 ? Health::not_ready : Health::strange;
            out.why = url + ": " + why + (reply.status == 503 ? "" : "; or name the models with --model");
            return false;
        }
    }
    facts_ = std::move(facts);
    return true;
}

Observation EngineProbe::ask(double now) {
    Observation out;
    out.models = options_.models;
    if (!adapter_.rare_health && !ask_health(out)) {
        next_facts_ = -1;  // what comes back may be another model
        return out;
    }
    if (now >= next_facts_) {
        if (!ask_facts(out)) {
            return out;
        }
        next_facts_ = now + options_.facts_every_s;
    }
    out.models = facts_.models;
    out.note = facts_.note;
    if (!ask_metrics(out)) {
        // Where health is asked for rarely, it is here that an engine is seen to be away. What answers but is strange
        // or late is not asked for all its facts each time.
        next_facts_ = out.health == Health::absent ? -1 : next_facts_;
        return out;
    }
    for (const Field field : {Field::max_running, Field::max_context}) {
        out[field] = out[field] ? out[field] : facts_[field];
    }
    out.health = Health::up;
    out.why.clear();
    return out;
}

}  // namespace llm::reporter
