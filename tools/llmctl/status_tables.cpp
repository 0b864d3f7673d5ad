#include "tools/llmctl/status_tables.hpp"

#include "shared/json.hpp"
#include "tools/llmctl/gateway.hpp"

namespace llm::ctl {
namespace {

std::string count(const Json& object, const char* name) {
    return amount_text(number_of(object, name));
}

std::string percent(const Json& object, const char* name) {
    return std::to_string(static_cast<int>(number_of(object, name) * 100 + 0.5)) + "%";
}

std::string joined(const Json& names) {
    std::string out;
    for (const Json& name : names) {
        out += (out.empty() ? "" : ",") + (name.is_string() ? name.get<std::string>() : std::string("?"));
    }
    return out;
}

// Seats over limit: "12/64".
std::string seats(const Json& engine) {
    return count(engine, "held") + "/" + count(engine, "limit");
}

}  // namespace

bool is_waiting(const Json& request) {
    const std::string state = text_of(request, "state");
    return state == "queued" || state == "granted";
}

std::string engine_state(const Json& engine) {
    const std::string breaker = text_of(engine, "breaker");
    return flag_of(engine, "leaving")                ? "leaving"
           : flag_of(engine, "drained")              ? "drained"
           : !breaker.empty() && breaker != "closed" ? "breaker " + breaker
           : text_of(engine, "state") != "ready"     ? text_of(engine, "state")
           : flag_of(engine, "below_minimum")        ? "below minimum"
           : flag_of(engine, "slow_start")           ? "slow start"
           : flag_of(engine, "usable")               ? "ready"
                                                     : "not usable";
}

Table models_table(const Json& status) {
    Table table({"MODEL", ">WAITING", ">RUNNING", ">OLDEST", ">ENGINES", ">USABLE", ">DONE/S"});
    for (const Json& model : list_of(status, "models")) {
        const bool waits = number_of(model, "queued") > 0;
        table.add({text_of(model, "name"), count(model, "queued"), count(model, "running"),
                   waits ? duration_text(number_of(model, "oldest_ms")) : "-", count(model, "engines"),
                   count(model, "engines_usable"), count(model, "drain_per_second")});
    }
    return table;
}

Table engines_table(const Json& status) {
    Table table({"ENGINE", "STATE", ">SEATS", ">RUNNING", ">WAITING", ">TOK/S", ">TOK/S/USER", ">MIN", ">KV",
                 ">REPORT", "MODELS"});
    for (const Json& engine : list_of(status, "engines")) {
        const auto age = engine.find("report_age_ms");
        const bool reported = age != engine.end() && age->is_number();
        table.add({text_of(engine, "id"), engine_state(engine), seats(engine), count(engine, "running"),
                   count(engine, "waiting"), count(engine, "tokens_per_second"),
                   count(engine, "tokens_per_second_per_user"),
                   number_of(engine, "minimum") > 0 ? count(engine, "minimum") : "-",
                   percent(engine, "kv_usage"), reported ? duration_text(age->get<double>()) : "never",
                   joined(list_of(engine, "models"))});
    }
    return table;
}

Table clients_table(const Json& status) {
    Table table({"CLIENT", ">WEIGHT", ">RUNNING", ">WAITING", ">TOKENS/MIN", ">PROMPT", ">COMPLETION"});
    for (const Json& client : list_of(status, "clients")) {
        table.add({text_of(client, "name"), count(client, "weight"), count(client, "running"),
                   count(client, "waiting"), count(client, "tokens_last_minute"),
                   count(client, "prompt_tokens"), count(client, "completion_tokens")});
    }
    return table;
}

Table requests_table(const Json& status, bool all) {
    Table table({"REQUEST", "STATE", "CLIENT", "MODEL", ">PRIORITY", ">CLASS", ">WAITED", ">AGE", ">PROMPT"});
    for (const Json& request : list_of(status, "requests")) {
        if (all || is_waiting(request)) {
            table.add({text_of(request, "id"),
                       text_of(request, "state") + (flag_of(request, "held_back") ? " (own limit)" : ""),
                       text_of(request, "client"), text_of(request, "model"), count(request, "priority"),
                       count(request, "class"), duration_text(number_of(request, "wait_ms")),
                       duration_text(number_of(request, "age_ms")), count(request, "prompt_tokens")});
        }
    }
    return table;
}

}  // namespace llm::ctl
