// queue, engines, drain, undrain.
#include <poll.h>

#include <chrono>

#include "shared/json.hpp"
#include "tools/llmctl/commands.hpp"
#include "tools/llmctl/failure.hpp"
#include "tools/llmctl/gateway.hpp"
#include "tools/llmctl/status_tables.hpp"

namespace llm::ctl {
namespace {

int say(const Arguments& arguments, const Json& result, const std::string& text) {
    if (arguments.json()) {
        print_json(result);
    } else {
        print(text + "\n");
    }
    return 0;
}

const Json* find_engine(const Json& status, const std::string& id) {
    for (const Json& engine : list_of(status, "engines")) {
        if (text_of(engine, "id") == id) {
            return &engine;
        }
    }
    return nullptr;
}

// Waits until the gateway has no request on the engine. The gateway is asked again and again: it has no event
// to wait for.
void wait_until_empty(Gateway& gateway, const std::string& id, int64_t seconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    for (;;) {
        const Json status = gateway.status();
        const Json* engine = find_engine(status, id);
        if (engine == nullptr || number_of(*engine, "held") == 0) {
            return;
        }
        if (std::chrono::steady_clock::now() >= end) {
            throw Failure(Exit::refused, "engine " + visible(id) + " is drained, but still has " +
                                             amount_text(number_of(*engine, "held")) + " requests after " +
                                             std::to_string(seconds) + " s");
        }
        poll(nullptr, 0, 200);
    }
}

}  // namespace

int show_queue(const Arguments& arguments) {
    const Json status = Gateway(arguments).status();
    const bool all = arguments.has("--all");
    if (arguments.json()) {
        Json requests = Json::array();
        for (const Json& request : list_of(status, "requests")) {
            if (all || is_waiting(request)) {
                requests.push_back(request);
            }
        }
        print_json({{"totals", object_of(status, "totals")},
                    {"models", list_of(status, "models")},
                    {"requests", requests}});
        return 0;
    }
    print(models_table(status).text());
    const Table requests = requests_table(status, all);
    print(requests.empty() ? "\nNobody waits.\n" : "\n" + requests.text());
    return 0;
}

int queue_cancel(const Arguments& arguments) {
    Gateway gateway(arguments);
    std::string gone;
    for (const std::string& id : arguments.operands()) {
        try {
            gateway.change("DELETE", "requests/" + percent_encode(id), "", "request " + visible(id));
        } catch (const Failure& failure) {
            if (failure.status() != Exit::not_found) {
                throw;
            }
            gone += (gone.empty() ? "" : ", ") + visible(id);  // ended by itself, perhaps: the others shall end all the same
        }
    }
    if (!gone.empty()) {
        throw Failure(Exit::not_found, "the gateway has no request " + gone + "; all others named were ended");
    }
    return say(arguments, {{"cancelled", arguments.operands()}},
               "Ended " + std::to_string(arguments.operands().size()) + " requests.");
}

int queue_priority(const Arguments& arguments) {
    const std::string& id = arguments.operands()[0];
    const int64_t priority = parse_integer("the priority", arguments.operands()[1], 0, 1000);
    Gateway gateway(arguments);
    gateway.change("PATCH", "requests/" + percent_encode(id), Json{{"priority", priority}}.dump(),
                   "waiting request " + visible(id));
    return say(arguments, {{"request", id}, {"priority", priority}},
               "Request " + visible(id) + " has priority " + std::to_string(priority) + " now.");
}

int show_engines(const Arguments& arguments) {
    const Json status = Gateway(arguments).status();
    if (arguments.json()) {
        print_json(list_of(status, "engines"));
        return 0;
    }
    const Table table = engines_table(status);
    print(table.empty() ? "There are no engines.\n" : table.text());
    return 0;
}

int drain_engine(const Arguments& arguments) {
    const std::string& id = arguments.operands()[0];
    const int64_t seconds = arguments.integer("--wait", 1, 86400, 0);
    Gateway gateway(arguments);
    gateway.change("POST", "engines/" + percent_encode(id) + "/drain", "", "engine " + visible(id));
    if (seconds > 0) {
        wait_until_empty(gateway, id, seconds);
    }
    return say(
        arguments, {{"engine", id}, {"drained", true}, {"empty", seconds > 0 ? Json(true) : Json()}},
        "Engine " + visible(id) + " gets no new requests" + (seconds > 0 ? " and has none left." : "."));
}

int undrain_engine(const Arguments& arguments) {
    const std::string& id = arguments.operands()[0];
    Gateway gateway(arguments);
    gateway.change("POST", "engines/" + percent_encode(id) + "/undrain", "", "engine " + visible(id));
    return say(arguments, {{"engine", id}, {"drained", false}},
               "Engine " + visible(id) + " gets requests again.");
}

}  // namespace llm::ctl
