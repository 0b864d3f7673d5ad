// llm-engine: one model, one process. The network thread serves HTTP, the engine thread computes, a third
// reports to Redis, a fourth loads the model; this one waits for the end.
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
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
#include "engine_worker/server/report_source.hpp"
#include "shared/command_line.hpp"

namespace llm::engine {
namespace {

// Seconds: a report is published within 100 ms, and gateways act on it at once.
constexpr double kDrainGrace = 1;

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

int fail(const std::string& why) {
    std::fprintf(stderr, "llm-engine: %s\n", why.c_str());
    return 1;
}

ServiceOptions service_options(const Options& options) {
    ServiceOptions out;
    out.model_names = served_names(options);
    out.max_waiting = options.max_waiting;
    out.drain_timeout = options.drain_timeout;
    out.drain_grace = options.drain_grace.value_or(options.redis.empty() ? 0 : kDrainGrace);
    out.api_keys = options.api_keys;
    return out;
}

HttpServerOptions server_options(const Options& options) {
    HttpServerOptions out;
    out.limits.max_body = options.max_body;
    out.origins = options.origins;
    return out;
}

// Nothing where no Redis is named.
std::unique_ptr<ReportPublisher> make_publisher(const Options& options, const ReportSource& source) {
    if (options.redis.empty()) {
        return nullptr;
    }
    PublisherOptions publisher;
    publisher.redis = options.redis_url;
    publisher.prefix = options.prefix;
    return std::make_unique<ReportPublisher>(publisher, [&source] { return source.snapshot(); });
}

// What computes. The order is that of construction: each uses those above it.
struct Engine {
    LoadedModel loaded;
    std::unique_ptr<EngineCore> core;
    std::unique_ptr<EngineThread> thread;
};

std::unique_ptr<EngineCore> make_core(const Options& options, LoadedModel& loaded) {
    EngineOptions engine;
    engine.max_running = loaded.backend->info().max_step_seqs;
    engine.step_target_ms = options.step_target_ms;
    engine.end_tokens = loaded.model->end_tokens;
    std::random_device random;
    engine.hash_key = static_cast<uint64_t>(random()) << 32 | random();
    return std::make_unique<EngineCore>(std::move(loaded.backend), *loaded.model->tokenizer, engine,
                                        steady_seconds);
}

// What of the model's files an operator may not expect.
void tell_peculiarities(const ServedModel& model) {
    if (const std::string defaults = model.defaults.text(); !defaults.empty()) {
        std::fprintf(stderr, "llm-engine: unless a request says otherwise: %s (generation_config.json)\n",
                     defaults.c_str());
    }
    if (!model.template_for(true).shows_tools()) {
        std::fputs(
            "llm-engine: the chat template does not show tools to the model: what requests offer is "
            "used for the form of the answer only (see --chat-template)\n",
            stderr);
    }
}

// Loads the model and starts to serve it. `address`: where, for the log. Throws what load_model() throws.
void start_engine(const Options& options, ApiService& service, ReportSource& source,
                  const std::function<void()>& report_change, const std::string& address, Engine& out) {
    out.loaded = load_model(options);
    ServedModel& model = *out.loaded.model;
    const std::string backend = out.loaded.backend->info().name;
    tell_peculiarities(model);
    out.core = make_core(options, out.loaded);
    model.max_context = out.core->max_context();
    model.max_running = out.core->max_running();
    const EngineThread::Callbacks callbacks{[&service] { service.wake(); },
                                            [&service, report_change] {
                                                report_change();
                                                service.wake();
                                            }};
    out.thread = std::make_unique<EngineThread>(*out.core, callbacks);
    source.set_engine(*out.thread, model.max_running, model.max_context);
    service.start(model, *out.thread);
    std::fprintf(stderr, "llm-engine: %s on %s, %d sequences, %d tokens of context, listening on %s\n",
                 served_names(options).front().c_str(), backend.c_str(), model.max_running, model.max_context,
                 address.c_str());
}

// Returns the exit status.
int serve(const Options& options) {
    const int signals = block_signals();
    ApiService service(service_options(options), steady_seconds);
    HttpServer server(service, server_options(options), steady_seconds);
    if (const std::string why = server.listen(options.listen); !why.empty()) {
        return fail(why);
    }
    EngineReport fixed;
    if (const std::string why = describe_engine(options, server.port(), fixed); !why.empty()) {
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
    const std::unique_ptr<ReportPublisher> publisher = make_publisher(options, source);
    const auto report_change = [&publisher] {
        if (publisher != nullptr) {
            publisher->notify();
        }
    };
    service.on_state_change(report_change);
    std::thread network([&server] { server.run(); });

    int status = 0;
    Engine engine;
    std::atomic<bool> loading{true};
    std::thread loader([&] {
        try {
            start_engine(options, service, source, report_change,
                         server.port() != 0 ? fixed.url : options.listen, engine);
        } catch (const std::exception& error) {
            status = fail(error.what());
        }
        loading = false;
        if (status != 0) {
            service.fail();
            kill(getpid(), SIGTERM);  // blocked everywhere: the network thread reads it and stops
        }
    });
    network.join();
    if (loading) {
        // A large model takes minutes, and nobody waits for it any more.
        if (publisher != nullptr) {
            publisher->goodbye();
        }
        server.close_listeners();
        std::_Exit(0);
    }
    loader.join();
    service.detach();
    if (engine.thread != nullptr && !engine.thread->failure().empty()) {
        status = fail(engine.thread->failure());
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
