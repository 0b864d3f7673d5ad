// llm-engine: one model, one process. The network thread serves HTTP, the engine thread computes, a third
// reports to Redis; this one loads the model and waits for the end.
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <exception>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine_worker/clock.hpp"
#include "engine_worker/scheduler/engine_core.hpp"
#include "engine_worker/scheduler/engine_thread.hpp"
#include "engine_worker/server/api_service.hpp"
#include "engine_worker/server/http_server.hpp"
#include "engine_worker/server/load_model.hpp"
#include "engine_worker/server/options.hpp"
#include "engine_worker/server/report_publisher.hpp"
#include "shared/command_line.hpp"

namespace llm::engine {
namespace {

constexpr uint32_t kReportTtlMs = 3000;

std::string host_name() {
    char name[256] = "localhost";
    gethostname(name, sizeof name - 1);
    return name;
}

// What never changes of a report. Empty, or why these options cannot be reported.
std::string describe(const Options& options, uint16_t port, EngineReport& out) {
    out.id = options.id;
    out.url = options.advertise;
    out.models = served_names(options);
    out.org = options.org;
    out.boot = unix_milliseconds();
    out.ttl_ms = kReportTtlMs;
    out.max_running = static_cast<uint32_t>(options.max_running > 0 ? options.max_running : kDefaultRunning);
    out.preempts = true;
    if (out.id.empty()) {
        out.id = host_name() + ":" + (port != 0 ? std::to_string(port) : options.listen);
    }
    if (out.url.empty() && port == 0) {
        return options.redis.empty()
                   ? ""
                   : "--advertise is needed when --listen is a UNIX socket and --redis is given";
    }
    if (out.url.empty()) {
        std::string host = options.listen.substr(0, options.listen.rfind(':'));
        if (host.empty() || host == "*" || host == "0.0.0.0" || host == "[::]") {
            host = host_name();
        }
        out.url = "http://" + host + ":" + std::to_string(port);
    }
    EngineReport parsed;
    const std::string why = options.redis.empty() ? "" : parse_engine_report(to_json(out), parsed);
    return why.empty() ? "" : "the report would not be valid: " + why;
}

// Termination signals as a file descriptor; blocked in every thread that starts after this.
int block_signals() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

// The report's changing part. The engine appears when the model is loaded; until then all counters are zero.
class ReportSource {
  public:
    ReportSource(EngineReport fixed, const ApiService& service)
        : fixed_(std::move(fixed)), service_(service) {}

    void set_engine(const EngineThread* engine, int32_t max_running, int32_t max_context) {
        fixed_max_running_.store(max_running);
        fixed_max_context_.store(max_context);
        engine_.store(engine);
    }

    EngineReport snapshot() const {
        EngineReport report = fixed_;
        report.state = service_.state();
        report.uptime_s = steady_seconds() - started_;
        report.has_counters = true;
        if (const EngineThread* engine = engine_.load(); engine != nullptr) {
            const EngineStats stats = engine->stats();
            report.max_running = static_cast<uint32_t>(fixed_max_running_.load());
            report.max_context = static_cast<uint32_t>(fixed_max_context_.load());
            report.running = stats.running;
            report.waiting = stats.waiting_long;
            report.kv_usage = stats.kv_usage;
            report.tokens_in = static_cast<double>(stats.tokens_in);
            report.tokens_out = static_cast<double>(stats.tokens_out);
            report.decode_tokens = static_cast<double>(stats.decode_tokens);
            report.user_seconds = stats.user_seconds;
            report.completed = static_cast<double>(stats.completed);
        }
        return report;
    }

  private:
    EngineReport fixed_;
    const ApiService& service_;
    double started_ = steady_seconds();
    std::atomic<const EngineThread*> engine_{nullptr};
    std::atomic<int32_t> fixed_max_running_{0}, fixed_max_context_{0};
};

// Seconds: a report is published within 100 ms, and gateways act on it at once.
constexpr double kDrainGrace = 1;

int fail(const std::string& why) {
    std::fprintf(stderr, "llm-engine: %s\n", why.c_str());
    return 1;
}

int serve(const Options& options) {
    const int signals = block_signals();
    ServiceOptions service_options;
    service_options.model_names = served_names(options);
    service_options.max_waiting = options.max_waiting;
    service_options.drain_timeout = options.drain_timeout;
    service_options.drain_grace = options.drain_grace.value_or(options.redis.empty() ? 0 : kDrainGrace);
    service_options.api_keys = options.api_keys;
    ApiService service(service_options, steady_seconds);
    HttpServerOptions http_options;
    http_options.limits.max_body = options.max_body;
    http_options.origins = options.origins;
    HttpServer server(service, http_options, steady_seconds);
    if (const std::string why = server.listen(options.listen); !why.empty()) {
        return fail(why);
    }
    EngineReport fixed;
    if (const std::string why = describe(options, server.port(), fixed); !why.empty()) {
        return fail(why);
    }
    service.bind(server);
    server.watch(signals, [&] {
        signalfd_siginfo info;
        while (read(signals, &info, sizeof info) == sizeof info) {
            service.drain(true);
        }
    });

    ReportSource source(fixed, service);
    std::unique_ptr<ReportPublisher> publisher;
    if (!options.redis.empty()) {
        PublisherOptions publisher_options;
        publisher_options.redis = options.redis_url;
        publisher_options.prefix = options.prefix;
        publisher =
            std::make_unique<ReportPublisher>(publisher_options, [&source] { return source.snapshot(); });
    }
    const auto report_change = [&publisher] {
        if (publisher != nullptr) {
            publisher->notify();
        }
    };
    service.on_state_change(report_change);
    std::thread network([&server] { server.run(); });

    int status = 0;
    LoadedModel loaded;
    std::unique_ptr<EngineCore> core;
    std::unique_ptr<EngineThread> engine;
    try {
        loaded = load_model(options);
        EngineOptions engine_options;
        engine_options.max_running = loaded.backend->info().max_step_seqs;
        engine_options.step_target_ms = options.step_target_ms;
        engine_options.end_tokens = loaded.model->end_tokens;
        std::random_device random;
        engine_options.hash_key = static_cast<uint64_t>(random()) << 32 | random();
        const std::string backend = loaded.backend->info().name;
        if (const std::string defaults = loaded.model->defaults.text(); !defaults.empty()) {
            std::fprintf(stderr, "llm-engine: unless a request says otherwise: %s (generation_config.json)\n",
                         defaults.c_str());
        }
        if (!loaded.model->template_for(true).shows_tools()) {
            std::fprintf(
                stderr,
                "llm-engine: the chat template does not show tools to the model: what requests offer is "
                "used for the form of the answer only (see --chat-template)\n");
        }
        core = std::make_unique<EngineCore>(std::move(loaded.backend), *loaded.model->tokenizer,
                                            engine_options, steady_seconds);
        loaded.model->max_context = core->max_context();
        loaded.model->max_running = core->max_running();
        engine = std::make_unique<EngineThread>(*core, EngineThread::Callbacks{[&service] { service.wake(); },
                                                                               [&] {
                                                                                   report_change();
                                                                                   service.wake();
                                                                               }});
        source.set_engine(engine.get(), core->max_running(), core->max_context());
        service.start(*loaded.model, *engine);
        std::fprintf(stderr, "llm-engine: %s on %s, %d sequences, %d tokens of context, listening on %s\n",
                     service_options.model_names.front().c_str(), backend.c_str(), core->max_running(),
                     core->max_context(), server.port() != 0 ? fixed.url.c_str() : options.listen.c_str());
    } catch (const std::exception& error) {
        status = fail(error.what());
        service.fail();
        kill(getpid(), SIGTERM);  // blocked everywhere: the network thread reads it and stops
    }
    network.join();
    service.detach();
    if (engine != nullptr && !engine->failure().empty()) {
        status = fail(engine->failure());
    }
    if (publisher != nullptr) {
        publisher->goodbye();
    }
    ::close(signals);
    return status;
}

}  // namespace
}  // namespace llm::engine

int main(int argc, char** argv) {
    using namespace llm::engine;
    Options options;
    const std::string why = parse_options({argv + 1, argv + argc}, options);
    llm::hide_passwords(argc, argv);
    if (!why.empty()) {
        return fail(why);
    }
    if (options.help || options.version) {
        std::fputs(options.help ? usage_text().c_str() : "llm-engine " LLM_VERSION "\n", stdout);
        return 0;
    }
    return serve(options);
}
