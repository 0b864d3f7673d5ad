#include "engine_worker/server/report_publisher.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <utility>

namespace llm::engine {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr double kRateWindow = 2.0;
constexpr double kFirstBackoff = 0.1;  // seconds
constexpr double kLastBackoff = 5.0;

double seconds(SteadyClock::time_point at) {
    return std::chrono::duration<double>(at.time_since_epoch()).count();
}

SteadyClock::duration duration(double s) {
    return std::chrono::duration_cast<SteadyClock::duration>(std::chrono::duration<double>(s));
}

}  // namespace

void RecentRates::apply(EngineReport& report, double now) {
    if (report.boot != boot_) {
        boot_ = report.boot;
        samples_.clear();  // its counters begin anew
    }
    // Keep one sample that is at least as old as the window: the difference then covers all of it.
    while (samples_.size() > 1 && samples_[1].at <= now - kRateWindow) {
        samples_.pop_front();
    }
    if (!samples_.empty()) {
        const Sample& then = samples_.front();
        const double span = now - then.at;
        const double user_seconds = report.user_seconds - then.user_seconds;
        report.tokens_per_second = span > 0 ? (report.tokens_out - then.tokens_out) / span : 0;
        report.tokens_per_second_per_user =
            user_seconds > 0 ? (report.decode_tokens - then.decode_tokens) / user_seconds : 0;
    }
    samples_.push_back({now, report.tokens_out, report.decode_tokens, report.user_seconds});
}

ReportPublisher::ReportPublisher(const PublisherOptions& options, Snapshot snapshot)
    : options_(options), snapshot_(std::move(snapshot)), redis_(options.redis), thread_([this] { run(); }) {}

ReportPublisher::~ReportPublisher() {
    end(false);
}

void ReportPublisher::goodbye() {
    end(true);
}

void ReportPublisher::end(bool say_goodbye) {
    if (!thread_.joinable()) {
        return;
    }
    {
        const std::lock_guard lock(mutex_);
        ending_ = true;
        say_goodbye_ = say_goodbye;
    }
    wake_.notify_one();
    thread_.join();
}

void ReportPublisher::notify() {
    {
        const std::lock_guard lock(mutex_);
        changed_ = true;
    }
    wake_.notify_one();
}

std::string ReportPublisher::write(EngineReport& report) {
    report.seq = ++seq_;
    rates_.apply(report, seconds(SteadyClock::now()));
    return to_json(report);
}

bool ReportPublisher::publish(const EngineReport& snapshot) {
    EngineReport report = snapshot;
    const std::string json = write(report);
    const std::string why = redis_.run({
        {"SET", options_.prefix + "engine:" + report.id, json, "PX", std::to_string(report.ttl_ms)},
        {"PUBLISH", options_.prefix + "engines", json},
    });
    if (why != trouble_) {
        trouble_ = why;
        std::fprintf(stderr,
                     why.empty() ? "%s: Redis is reachable%s\n"
                                 : "%s: Redis is not reachable, everything else goes on: %s\n",
                     options_.program.c_str(), why.c_str());
    }
    if (why.empty()) {
        published_ = std::move(report);
    }
    return why.empty();
}

// Whoever was never heard of need not say goodbye.
void ReportPublisher::say_gone() {
    if (const std::optional<EngineReport> report = snapshot_(); report && !publish(*report)) {
        return;  // draining, if nobody heard it yet
    }
    if (!published_) {
        return;
    }
    EngineReport report = *published_;
    report.state = EngineState::gone;
    const std::string json = write(report);
    redis_.run(
        {{"DEL", options_.prefix + "engine:" + report.id}, {"PUBLISH", options_.prefix + "engines", json}});
}

void ReportPublisher::run() {
    std::minstd_rand random{std::random_device{}()};
    double backoff = kFirstBackoff;
    auto next = SteadyClock::now();  // the latest moment of the next report
    auto earliest = next;            // and the earliest
    for (;;) {
        {
            std::unique_lock lock(mutex_);
            wake_.wait_until(lock, next, [&] { return ending_ || changed_; });
            if (!ending_ && changed_) {
                wake_.wait_until(lock, earliest, [&] { return ending_; });
            }
            if (ending_) {
                break;
            }
            changed_ = false;
        }
        const auto now = SteadyClock::now();
        const std::optional<EngineReport> report = snapshot_();
        if (!report || publish(*report)) {
            backoff = kFirstBackoff;
            next = now + duration(options_.heartbeat);
            earliest = now + duration(options_.min_gap);
        } else {
            // Half to all of the back-off: engines that lost Redis together do not return together.
            const double wait = backoff * std::uniform_real_distribution<double>(0.5, 1.0)(random);
            backoff = std::min(backoff * 2, kLastBackoff);
            next = earliest = SteadyClock::now() + duration(wait);
        }
    }
    if (say_goodbye_) {
        say_gone();
    }
}

}  // namespace llm::engine
