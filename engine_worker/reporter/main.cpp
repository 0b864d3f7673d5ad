// llm-reporter: a sidecar that looks at an engine and reports for it. This thread asks the engine; another
// one, the publisher's, talks to Redis, so neither waits for the other.
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine_worker/clock.hpp"
#include "engine_worker/reporter/engine_probe.hpp"
#include "engine_worker/reporter/options.hpp"
#include "engine_worker/reporter/report_maker.hpp"
#include "engine_worker/server/report_publisher.hpp"
#include "shared/command_line.hpp"

namespace llm::reporter {
namespace {

constexpr uint32_t kMinTtlMs = 3000;

int fail(const std::string& why) {
    std::fprintf(stderr, "llm-reporter: %s\n", why.c_str());
    return 1;
}

// What the two threads share: the report of now, or nothing.
class Blackboard {
  public:
    void set(std::optional<EngineReport> report) {
        const std::lock_guard lock(mutex_);
        report_ = std::move(report);
    }
    std::optional<EngineReport> get() const {
        const std::lock_guard lock(mutex_);
        return report_;
    }

  private:
    mutable std::mutex mutex_;
    std::optional<EngineReport> report_;
};

// Says in the log what has changed, once.
class Complaints {
  public:
    void tell(const Observation& seen, const std::string& url) {
        const std::string now = seen.health == Health::up ? "" : seen.why;
        if (now != last_ && !(first_ && now.empty())) {
            std::fprintf(stderr, "llm-reporter: %s\n",
                         now.empty() ? (url + " answers").c_str() : (now + "; trying again").c_str());
        }
        if (first_ && now.empty()) {
            std::fprintf(stderr, "llm-reporter: reporting for %s\n", url.c_str());
        }
        if (seen.note != note_ && !seen.note.empty()) {
            std::fprintf(stderr, "llm-reporter: %s: %s\n", url.c_str(), seen.note.c_str());
        }
        first_ = false;
        last_ = now;
        note_ = seen.health == Health::up ? seen.note : note_;
    }

  private:
    std::string last_;
    std::string note_;
    bool first_ = true;
};

MakerOptions maker_options(const Options& options) {
    MakerOptions out;
    out.fixed.id = options.id;
    out.fixed.url = options.advertise_url;
    out.fixed.org = options.org;
    // three looks and what they may take at most, so that one late look does not cost the key
    const double longest = 3 * (options.interval_s + 3 * options.timeout_s);
    out.fixed.ttl_ms = std::max(kMinTtlMs, static_cast<uint32_t>(longest * 1000));
    out.fixed.max_running = options.max_running > 0 ? options.max_running : options.adapter->max_running;
    out.fixed.max_context = options.max_context;
    out.has_max_running = options.max_running > 0;
    out.has_max_context = options.max_context > 0;
    out.default_max_running = options.adapter->max_running;
    out.fail_after_s = options.fail_after_s;
    return out;
}

ProbeOptions probe_options(const Options& options) {
    ProbeOptions out;
    out.url = options.url;
    out.metrics_url = options.metrics_url;
    out.api_key = options.api_key;
    out.ca_file = options.ca_file;
    out.models = options.models;
    out.timeout_s = options.timeout_s;
    return out;
}

// A report that gateways would refuse (a model's name that is too long) is not sent.
std::optional<EngineReport> valid(std::optional<EngineReport> report, Observation& seen) {
    EngineReport parsed;
    if (report) {
        if (const std::string why = parse_engine_report(to_json(*report), parsed); !why.empty()) {
            seen.health = Health::strange;
            seen.why = "the report would not be valid: " + why;
            return std::nullopt;
        }
    }
    return report;
}

int print_once(const Options& options) {
    EngineProbe probe(*options.adapter, probe_options(options));
    ReportMaker maker(maker_options(options));
    const double now = steady_seconds();
    Observation seen = probe.ask(now);
    const std::optional<EngineReport> report = valid(maker.take(seen, now, unix_milliseconds()), seen);
    if (seen.health != Health::up) {
        return fail(seen.why);
    }
    std::printf("%s\n", to_json(*report).c_str());
    return 0;
}

int serve(const Options& options) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    signal(SIGPIPE, SIG_IGN);
    const int signals = signalfd(-1, &set, SFD_CLOEXEC);

    EngineProbe probe(*options.adapter, probe_options(options));
    ReportMaker maker(maker_options(options));
    Blackboard board;
    Complaints complaints;
    engine::PublisherOptions publisher_options;
    publisher_options.redis = options.redis;
    publisher_options.prefix = options.prefix;
    publisher_options.program = "llm-reporter";
    engine::ReportPublisher publisher(publisher_options, [&board] { return board.get(); });
    for (;;) {
        const double begun = steady_seconds();
        Observation seen = probe.ask(begun);
        const double now = steady_seconds();
        std::optional<EngineReport> report = valid(maker.take(seen, now, unix_milliseconds()), seen);
        complaints.tell(seen, options.url);
        board.set(std::move(report));
        publisher.notify();
        const double left = std::max(0.0, begun + options.interval_s - steady_seconds());
        pollfd watched{signals, POLLIN, 0};
        if (poll(&watched, 1, static_cast<int>(left * 1000)) > 0) {
            break;
        }
    }
    if (std::optional<EngineReport> last = board.get()) {
        last->state = EngineState::draining;
        board.set(std::move(last));
    }
    publisher.goodbye();
    close(signals);
    return 0;
}

}  // namespace
}  // namespace llm::reporter

int main(int argc, char** argv) {
    using namespace llm::reporter;
    Options options;
    const std::string why = parse_options({argv + 1, argv + argc}, options);
    llm::hide_passwords(argc, argv);
    if (!why.empty()) {
        fail(why);
        return 2;
    }
    if (options.help || options.version) {
        std::fputs(options.help ? usage_text().c_str() : "llm-reporter " LLM_VERSION "\n", stdout);
        return 0;
    }
    return options.once ? print_once(options) : serve(options);
}
