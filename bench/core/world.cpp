#include "bench/core/world.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace llm::sim {
namespace {

constexpr double kStepUs = 12'000;
constexpr double kPerSequenceUs = 150;
constexpr double kPerContextTokenUs = 0.06;
constexpr double kPerPrefillTokenUs = 50;
constexpr uint32_t kChunk = 2048;
constexpr double kWindowS = 5;
constexpr int64_t kTickUs = 100'000;

}  // namespace

uint32_t PrefixCache::find(const Job& job, int64_t now) {
    uint32_t tokens = 0;
    for (uint64_t what : {conversation_of(job), opening_of(job)}) {
        const auto entry = entries_.find(what);
        if (what > 1 && entry != entries_.end()) {
            tokens = std::max(tokens, entry->second.tokens);
            put(what, entry->second.tokens, now);
        }
    }
    return std::min(tokens, job.prompt - 1);  // the last one is always computed
}

void PrefixCache::keep(const Job& job, uint32_t tokens, int64_t now) {
    if (job.opening != 0) {
        put(opening_of(job), job.opening_tokens, now);
    }
    if (job.conversation != 0) {
        put(conversation_of(job), tokens, now);
    }
    while (tokens_ > kTokens) {
        const auto oldest = by_use_.begin();
        tokens_ -= entries_[oldest->second].tokens;
        entries_.erase(oldest->second);
        by_use_.erase(oldest);
    }
}

void PrefixCache::put(uint64_t what, uint32_t tokens, int64_t now) {
    Entry& entry = entries_[what];
    by_use_.erase({entry.used_at, what});
    tokens_ += tokens - entry.tokens;
    entry = {tokens, now};
    by_use_[{now, what}] = what;
}

World::World(std::vector<Job> jobs, uint32_t engines, double report_s, double queue_timeout_s,
             Gateway& gateway)
    : jobs_(std::move(jobs)),
      engines_(engines),
      report_us_(static_cast<int64_t>(report_s * 1e6)),
      timeout_us_(static_cast<int64_t>(queue_timeout_s * 1e6)),
      gateway_(gateway) {
    jobs_.reserve(jobs_.size() + 300'000);  // references to jobs stay good while jobs are added
    gateway_.world = this;
    for (uint32_t i = 0; i < jobs_.size(); ++i) {
        jobs_[i].id = i;
        push(jobs_[i].arrival_us, Kind::arrival, i);
    }
    for (uint32_t i = 0; i < engines; ++i) {
        push(report_us_ * (i + 1) / engines, Kind::report, i);  // engines do not report in step
    }
    push(kTickUs, Kind::tick, 0);
}

Job& World::add(Job job) {
    job.id = static_cast<uint32_t>(jobs_.size());
    jobs_.push_back(job);
    push(std::max(job.arrival_us, now_), Kind::arrival, job.id);
    return jobs_.back();
}

void World::run(double until_s) {
    const auto until = static_cast<int64_t>(until_s * 1e6);
    while (!events_.empty()) {
        const Event event = events_.top();
        if (event.at > until) {
            return;
        }
        events_.pop();
        now_ = event.at;
        switch (event.kind) {
            case Kind::arrival:
                push(now_ + timeout_us_, Kind::timeout, event.index);
                gateway_.arrive(jobs_[event.index]);
                break;
            case Kind::step:
                end_step(event.index);
                break;
            case Kind::report: {
                Engine& e = engines_[event.index];
                e.counters.running = running(event.index);
                gateway_.report(event.index, e.counters);
                push(now_ + report_us_, Kind::report, event.index);
                break;
            }
            case Kind::timeout: {
                Job& job = jobs_[event.index];
                if (job.started_us < 0 && !job.timed_out) {
                    job.timed_out = true;
                    gateway_.expire(job);
                    if (on_end) {
                        on_end(job);
                    }
                }
                break;
            }
            case Kind::tick:
                gateway_.tick();
                push(now_ + kTickUs, Kind::tick, 0);
                break;
        }
    }
}

void World::start(Job& job, uint32_t engine) {
    job.started_us = now_;
    job.engine = engine;
    job.cached = job.prefilled = engines_[engine].cache.find(job, now_);
    engines_[engine].jobs.push_back(job.id);
    largest_ = std::max(largest_, running(engine));
    if (!engines_[engine].stepping) {
        begin_step(engine);
    }
}

void World::begin_step(uint32_t engine) {
    Engine& e = engines_[engine];
    if (e.jobs.empty()) {
        e.stepping = false;
        return;
    }
    double context = 0;
    uint32_t prefill = 0;
    for (uint32_t id : e.jobs) {
        Job& job = jobs_[id];
        const uint32_t left = job.prompt - job.prefilled;
        const uint32_t chunk = std::min(left, kChunk - prefill);
        prefill += chunk;
        context += job.prefilled + job.generated;
    }
    const double us = kStepUs + kPerSequenceUs * static_cast<double>(e.jobs.size()) +
                      kPerContextTokenUs * context + kPerPrefillTokenUs * prefill;
    e.stepping = true;
    e.step_began = now_;
    e.prefill_budget =
        static_cast<uint32_t>(e.jobs.size());  // those that joined later wait for the next step
    push(now_ + static_cast<int64_t>(us), Kind::step, engine);
}

void World::end_step(uint32_t engine) {
    Engine& e = engines_[engine];
    const double seconds = static_cast<double>(now_ - e.step_began) / 1e6;
    const auto window = static_cast<size_t>(static_cast<double>(now_) / 1e6 / kWindowS);
    e.window_tokens.resize(std::max(e.window_tokens.size(), window + 1));
    e.window_seconds.resize(e.window_tokens.size());
    const auto slice = static_cast<size_t>(now_ / 100'000);
    tokens_per_100ms_.resize(std::max(tokens_per_100ms_.size(), slice + 1));
    uint32_t prefill = 0;
    std::vector<uint32_t> ended;
    std::vector<uint32_t> spoke;
    for (uint32_t n = 0; n < e.prefill_budget; ++n) {
        Job& job = jobs_[e.jobs[n]];
        if (job.prefilled < job.prompt) {
            const uint32_t chunk = std::min(job.prompt - job.prefilled, kChunk - prefill);
            prefill += chunk;
            job.prefilled += chunk;
            if (job.prefilled < job.prompt) {
                continue;
            }
        }
        job.generated++;
        tokens_per_100ms_[slice]++;
        if (job.generated == 1) {
            job.first_token_us = now_;
        } else {
            e.counters.decode_tokens += 1;
            e.counters.user_seconds += seconds;
            e.window_tokens[window] += 1;
            e.window_seconds[window] += seconds;
        }
        (job.generated >= job.output ? ended : spoke).push_back(job.id);
    }
    for (uint32_t id : ended) {
        jobs_[id].end_us = now_;
        e.cache.keep(jobs_[id], jobs_[id].prompt + jobs_[id].generated, now_);
        e.counters.completed += 1;
        e.jobs.erase(std::find(e.jobs.begin(), e.jobs.end(), id));
    }
    for (uint32_t id : spoke) {
        gateway_.token(jobs_[id]);
    }
    e.stepping = true;  // whatever starts now joins the next step
    for (uint32_t id : ended) {
        gateway_.finished(jobs_[id]);
        if (on_end) {
            on_end(jobs_[id]);
        }
    }
    begin_step(engine);
}

double World::tokens_between(double from_s, double to_s) const {
    double tokens = 0;
    for (size_t i = static_cast<size_t>(from_s * 10); i < tokens_per_100ms_.size() && i < to_s * 10; ++i) {
        tokens += tokens_per_100ms_[i];
    }
    return tokens;
}

double World::slow_windows(double minimum, double from_s, double to_s) const {
    double slow = 0;
    double all = 0;
    for (const Engine& e : engines_) {
        for (size_t i = static_cast<size_t>(from_s / kWindowS);
             i < e.window_tokens.size() && i < to_s / kWindowS; ++i) {
            if (e.window_seconds[i] >= 1) {
                all += 1;
                slow += e.window_tokens[i] / e.window_seconds[i] < minimum ? 1 : 0;
            }
        }
    }
    return all > 0 ? slow / all : 0;
}

double World::slow_requests(double minimum) const {
    double slow = 0;
    double all = 0;
    for (const Job& job : jobs_) {
        if (job.end_us >= 0 && job.output >= 2) {
            all += 1;
            const double seconds = static_cast<double>(job.end_us - job.first_token_us) / 1e6;
            slow += (job.output - 1) / seconds < minimum ? 1 : 0;
        }
    }
    return all > 0 ? slow / all : 0;
}

std::vector<Job> read_trace(const std::string& path, double speed) {
    std::vector<Job> jobs;
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    const bool with_client = line.find("client") != std::string::npos;
    while (std::getline(file, line)) {
        std::istringstream fields(line);
        std::string field;
        Job job;
        std::getline(fields, field, ',');
        job.arrival_us = static_cast<int64_t>(std::strtod(field.c_str(), nullptr) / speed * 1e6);
        if (with_client) {
            std::getline(fields, field, ',');
            job.client = static_cast<uint32_t>(std::strtoul(field.c_str() + 1, nullptr, 10));
        }
        std::getline(fields, field, ',');
        job.prompt = std::max(1u, static_cast<uint32_t>(std::strtoul(field.c_str(), nullptr, 10)));
        std::getline(fields, field, ',');
        job.output = std::max(1u, static_cast<uint32_t>(std::strtoul(field.c_str(), nullptr, 10)));
        jobs.push_back(job);
    }
    return jobs;
}

}  // namespace llm::sim
