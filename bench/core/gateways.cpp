#include "bench/core/gateways.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>

namespace llm::sim {
namespace {

constexpr double kSlack = 4096;  // S of the bound: the window slack
constexpr uint32_t kBytesPerToken = 4;
constexpr uint32_t kChargedMax = 2048;  // max_tokens that the charging baseline assumes

// The keys that the body of the job's request would have.
core::PrefixKeys keys_of(const Job& job) {
    core::PrefixKeys keys;
    keys.bytes = job.conversation != 0 ? job.prompt * kBytesPerToken : 0;
    for (uint32_t i = 0; i < keys.count(); ++i) {
        const bool opening = core::PrefixKeys::covered(i) <= job.opening_tokens * kBytesPerToken;
        keys.key[i] = ((opening ? job.opening : job.conversation) * 2 + (opening ? 1 : 0)) * 8 + i + 1;
    }
    return keys;
}

}  // namespace

// ---- ledger -----------------------------------------------------------------------------------------------

void Ledger::running(uint32_t client, int change) {
    Account& a = accounts_[client];
    a.running += change;
    a.running_max = std::max(a.running_max, a.running);
}

void Ledger::sample(int64_t now_us, int64_t from_us) {
    if (now_us < from_us) {
        return;
    }
    if (!based_) {
        based_ = true;
        for (auto& [client, a] : accounts_) {
            a.base = a.service;
        }
    }
    for (auto i = accounts_.begin(); i != accounts_.end(); ++i) {
        for (auto j = std::next(i); j != accounts_.end(); ++j) {
            Pair& pair = pairs_[{i->first, j->first}];
            if (i->second.waiting <= 0 || j->second.waiting <= 0) {
                pair.together = false;
                continue;
            }
            const double wi = weight(i->first);
            const double wj = weight(j->first);
            const double difference = i->second.service / wi - j->second.service / wj;
            if (!pair.together) {
                pair = {true, difference, difference};
            }
            pair.low = std::min(pair.low, difference);
            pair.high = std::max(pair.high, difference);
            auto u = [this](const Account& a, double w) {
                return (prompt_max + a.running_max * (2 * output_max + prompt_error) + kSlack) / w;
            };
            const double bound = u(i->second, wi) + u(j->second, wj);
            largest_ = std::max(largest_, pair.high - pair.low);
            worst_over_bound_ = std::max(worst_over_bound_, (pair.high - pair.low) / bound);
        }
    }
}

double Ledger::share_error() const {
    double total = 0;
    double weights = 0;
    for (uint32_t client : saturated) {
        total += accounts_.at(client).service - accounts_.at(client).base;
        weights += weight(client);
    }
    double worst = 0;
    for (uint32_t client : saturated) {
        const Account& a = accounts_.at(client);
        worst = std::max(worst, std::abs((a.service - a.base) / total - weight(client) / weights));
    }
    return worst;
}

double Ledger::jain() const {
    double sum = 0;
    double squares = 0;
    for (uint32_t client : saturated) {
        const Account& a = accounts_.at(client);
        const double x = (a.service - a.base) / weight(client);
        sum += x;
        squares += x * x;
    }
    return squares > 0 ? sum * sum / (static_cast<double>(saturated.size()) * squares) : 0;
}

void CountingGateway::note_start(const Job& job, bool waited) {
    ledger_.waiting(job.client, waited ? -1 : 0);
    ledger_.running(job.client, 1);
    ledger_.serve(job.client, job.prompt);
}

// ---- our dispatcher ---------------------------------------------------------------------------------------

CoreGateway::CoreGateway(Ledger& ledger, double sample_from_s, const std::map<uint32_t, double>& weights,
                         uint32_t engines, double minimum, core::RoutingPolicy routing)
    : CountingGateway(ledger, sample_from_s), index_to_engine_(engines), seq_(engines) {
    const size_t bytes = size_t{64} << 20;
    memory_ = std::aligned_alloc(64, bytes);
    if (memory_ == nullptr || !core::format_zone(memory_, bytes) ||
        !zone_.attach(memory_, bytes, core::LockOps{[](void*) {}, [](void*) {}, nullptr})) {
        std::fprintf(stderr, "simulate: no zone\n");
        std::exit(2);
    }
    core::Settings settings;
    settings.min_throughput = minimum;
    settings.routing = routing;
    core::ClientLoad loader = core::ClientLoad::begin(zone_);
    for (auto [client, weight] : weights) {
        core::ClientRow row;
        const std::string name = "client" + std::to_string(client);
        row.hash = hash_token(name);
        row.name = name;
        row.priority = 1;
        row.weight = weight;
        row.threshold = core::kUnlimited;
        loader.add(row);
    }
    {
        core::ZoneLock lock(zone_);
        process_ = core::attach_process(lock, 1, 1, 1'000'000);
        core::apply_settings(lock, settings, 1'000'000, wakes_);
        loader.commit(lock, 1'000'000);
    }
    for (auto [client, weight] : weights) {
        core::lookup_client(zone_, hash_token("client" + std::to_string(client)), 1'000'000, 0,
                            clients_[client]);
    }
    for (uint32_t i = 0; i < engines; ++i) {
        core::EnginePlace place;
        place.address.length = 16;
        core::ZoneLock lock(zone_);
        core::apply_report(lock, make_report(i), &place, 1'000'000, wakes_);
    }
}

CoreGateway::~CoreGateway() {
    std::free(memory_);
}

EngineReport CoreGateway::make_report(uint32_t engine) const {
    EngineReport report;
    report.id = "gpu" + std::to_string(engine);
    report.url = "http://" + report.id;
    report.models = {"m"};
    report.state = EngineState::ready;
    report.boot = 1;
    report.seq = 1;
    report.ttl_ms = 3'600'000;
    report.max_running = 2048;
    report.has_counters = true;
    return report;
}

void CoreGateway::arrive(Job& job) {
    tickets_.resize(std::max<size_t>(tickets_.size(), job.id + 1));
    core::RequestArgs args;
    args.client = &clients_.at(job.client);
    args.model = "m";
    args.stream = true;
    args.prompt_tokens = job.prompt;
    const core::PrefixKeys keys = keys_of(job);
    args.prefix = &keys;
    args.process = process_;
    args.cookie = job.id;
    args.random = random_ = random_ * 1664525u + 1013904223u;
    core::Verdict verdict;
    {
        core::ZoneLock lock(zone_);
        verdict = core::submit(lock, args, now(), 0, wakes_);
    }
    tickets_[job.id] = verdict.ticket;
    if (verdict.decision == core::Decision::granted) {
        note_start(job, false);
        world->start(job, verdict.engine);
    } else if (verdict.decision == core::Decision::queued) {
        note_wait(job);
    } else {
        job.timed_out = true;  // the zone is full
    }
    take_up_all();
}

void CoreGateway::take_up_all() {
    core::Event events[16];
    std::vector<std::pair<uint32_t, uint32_t>> started;
    {
        core::ZoneLock lock(zone_);
        for (uint32_t n; (n = core::drain_events(lock, process_, events, 16, now())) != 0;) {
            for (uint32_t i = 0; i < n; ++i) {
                uint32_t engine;
                if (core::take_up(lock, events[i].ticket, now(), engine, wakes_)) {
                    started.push_back({static_cast<uint32_t>(events[i].cookie), engine});
                }
            }
        }
    }
    for (auto [id, engine] : started) {
        Job& job = world->jobs()[id];
        note_start(job, true);
        world->start(job, engine);
    }
}

void CoreGateway::token(Job& job) {
    note_token(job);
    if (job.generated % 16 == 1) {
        core::ZoneLock lock(zone_);
        core::charge(lock, tickets_[job.id], job.generated, false, now(), wakes_);
    }
}

void CoreGateway::finished(Job& job) {
    note_token(job);
    note_end(job);
    core::Usage usage;
    usage.prompt_tokens = job.prompt;
    usage.cached_tokens = job.cached;
    usage.completion_tokens = job.generated;
    usage.exact = true;
    {
        core::ZoneLock lock(zone_);
        core::finish(lock, tickets_[job.id], core::Outcome::completed, usage, now(), wakes_);
    }
    take_up_all();
}

void CoreGateway::report(uint32_t engine, const Counters& counters) {
    EngineReport report = make_report(engine);
    report.seq = ++seq_[engine] + 1;
    report.uptime_s = static_cast<double>(now()) / 1e6;
    report.decode_tokens = counters.decode_tokens;
    report.user_seconds = counters.user_seconds;
    report.completed = counters.completed;
    report.running = counters.running;
    {
        core::ZoneLock lock(zone_);
        core::apply_report(lock, report, nullptr, now(), wakes_);
    }
    take_up_all();
}

void CoreGateway::expire(Job& job) {
    note_expiry(job);
    core::ZoneLock lock(zone_);
    core::time_out(lock, tickets_[job.id], now(), 1, wakes_);
}

void CoreGateway::tick() {
    {
        core::ZoneLock lock(zone_);
        core::heartbeat(lock, process_, now(), wakes_);
        core::sweep(lock, now(), 0, ++random_, wakes_);
    }
    take_up_all();
    sample();
}

const char* CoreGateway::check() {
    const char* where = nullptr;
    core::ZoneLock lock(zone_);
    return core::check_zone(lock, &where) ? nullptr : where;
}

// ---- baselines --------------------------------------------------------------------------------------------

Baseline::Baseline(Ledger& ledger, double sample_from_s, const std::map<uint32_t, double>& weights,
                   Discipline discipline, Law law, double cap, uint32_t engines, double minimum)
    : CountingGateway(ledger, sample_from_s),
      weights_(weights),
      discipline_(discipline),
      law_(law),
      minimum_(minimum),
      places_(engines) {
    for (Place& place : places_) {
        place.limit = law == Law::cap ? cap : law == Law::aimd ? 2 : 1e9;
    }
}

bool Baseline::has_room(const Place& place) const {
    return law_ == Law::reported_average ? !place.slow : place.held < place.limit;
}

std::deque<uint32_t>* Baseline::next_queue(uint32_t& client) {
    std::deque<uint32_t>* best = nullptr;
    double best_key = std::numeric_limits<double>::infinity();
    for (auto& [id, queue] : queues_) {
        if (queue.empty()) {
            continue;
        }
        double key = 0;
        switch (discipline_) {
            case Discipline::fifo:
                key = queue.front();  // job ids grow with arrival
                break;
            case Discipline::strict:
                key = -weights_.at(id) * 1e9 + queue.front();
                break;
            case Discipline::round_robin:
                key = id > last_client_ ? id : id + 1e6;
                break;
            case Discipline::charge_max:
                key = charged_[id];
                break;
        }
        if (key < best_key) {
            best_key = key;
            best = &queue;
            client = id;
        }
    }
    return best;
}

void Baseline::run() {
    for (;;) {
        uint32_t client = 0;
        std::deque<uint32_t>* queue = next_queue(client);
        if (queue == nullptr) {
            return;
        }
        uint32_t engine = world->engines();
        for (uint32_t i = 0; i < places_.size(); ++i) {
            if (has_room(places_[i]) &&
                (engine == world->engines() || places_[i].held < places_[engine].held)) {
                engine = i;
            }
        }
        if (engine == world->engines()) {
            return;
        }
        Job& job = world->jobs()[queue->front()];
        queue->pop_front();
        last_client_ = client;
        charged_[client] += (job.prompt + 2.0 * kChargedMax) / weights_.at(client);
        places_[engine].held++;
        note_start(job, true);
        world->start(job, engine);
    }
}

void Baseline::arrive(Job& job) {
    std::deque<uint32_t>& queue = queues_[job.client];
    if (queue.empty()) {  // the same lift as ours, so that only the charging differs
        double smallest = std::numeric_limits<double>::infinity();
        for (auto& [id, other] : queues_) {
            if (!other.empty()) {
                smallest = std::min(smallest, charged_[id]);
            }
        }
        if (std::isfinite(smallest)) {
            charged_[job.client] = std::max(charged_[job.client], smallest);
        }
    }
    queue.push_back(job.id);
    note_wait(job);
    run();
}

void Baseline::finished(Job& job) {
    note_token(job);
    note_end(job);
    charged_[job.client] -=
        2.0 * (kChargedMax - static_cast<double>(job.generated)) / weights_.at(job.client);
    places_[job.engine].held--;
    run();
}

void Baseline::report(uint32_t engine, const Counters& counters) {
    Place& place = places_[engine];
    const double tokens = counters.decode_tokens - place.before.decode_tokens;
    const double seconds = counters.user_seconds - place.before.user_seconds;
    place.before = counters;
    if (seconds > 0) {
        const double speed = tokens / seconds;
        place.slow = speed < minimum_;
        if (law_ == Law::aimd) {
            place.limit = speed < minimum_                      ? std::max(1.0, place.limit * 0.8)
                          : place.held + 1 >= 0.8 * place.limit ? place.limit + 1
                                                                : place.limit;
        }
    } else {
        place.slow = false;
    }
    run();
}

void Baseline::expire(Job& job) {
    std::deque<uint32_t>& queue = queues_[job.client];
    queue.erase(std::find(queue.begin(), queue.end(), job.id));
    note_expiry(job);
}

}  // namespace llm::sim
