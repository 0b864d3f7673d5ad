#include "ngx_module/sources/engine_feed.hpp"

#include <nlohmann/json.hpp>
#include <utility>

namespace llm::nginx::sources {
namespace {

constexpr ngx_msec_t kRoundMs = 1'000;   // between two looks at the keys of known engines
constexpr uint32_t kRoundsPerScan = 30;  // how often all keys are looked for, in case a message was lost
constexpr std::string_view kScanCount = "512";
constexpr size_t kBatch = 64;  // keys of one MGET: ≤ 4 MiB of well-formed reports
constexpr uint32_t kForgetTtls = 10;

// The prefix as a literal part of a SCAN pattern.
std::string escape_glob(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (std::string_view("*?[]\\").find(c) != std::string_view::npos) {
            out += '\\';
        }
        out += c;
    }
    return out;
}

// Whose report this was meant to be, as far as it can be told.
std::string claimed_id(std::string_view text) {
    if (text.size() <= 65'536) {
        const auto document = nlohmann::json::parse(text, nullptr, false);
        if (document.is_object()) {
            const auto id = document.find("id");
            if (id != document.end() && id->is_string()) {
                return id->get<std::string>();
            }
        }
    }
    return "?";
}

}  // namespace

EngineFeed::EngineFeed(const RespEndpoint& endpoint, std::string_view prefix, EngineSink& sink)
    : key_prefix_(std::string(prefix) + "engine:"),
      channel_(std::string(prefix) + "engines"),
      sink_(sink),
      subscriber_ear_(*this, true),
      reader_ear_(*this, false),
      subscriber_("reports", endpoint, subscriber_ear_),
      reader_("keys", endpoint, reader_ear_),
      tick_([](void* self) { static_cast<EngineFeed*>(self)->on_tick(); }, this) {}

void EngineFeed::start() {
    subscriber_.start();
    reader_.start();
}

void EngineFeed::stop() {
    tick_.stop();
    subscriber_.stop();
    reader_.stop();
}

void EngineFeed::Ear::on_ready() {
    if (subscriber_) {
        feed_.on_subscriber_ready();
    } else {
        feed_.follow();
    }
}

void EngineFeed::Ear::on_message(std::string_view channel, std::string_view payload) {
    if (channel == feed_.channel_) {
        feed_.take(payload, nullptr);
    }
}

void EngineFeed::on_subscriber_ready() {
    subscriber_.command({"SUBSCRIBE", channel_}, [this](const redisReply& reply) {
        if (is_error(reply)) {
            subscriber_.restart("SUBSCRIBE was refused: " + std::string(text_of(reply)));
            return;
        }
        subscribed_ = true;
        follow();
    });
}

void EngineFeed::on_lost() {
    subscribed_ = subscribed_ && subscriber_.ready();
    busy_ = false;
    cursor_.clear();
    todo_.clear();
    tick_.stop();
    sink_.redis_state(false);
    sink_.round_done();
}

// Subscribed first, so that nothing is missed between reading the keys and listening.
void EngineFeed::follow() {
    if (!subscribed_ || !reader_.ready() || busy_) {
        return;
    }
    sink_.redis_state(true);
    // the time without Redis says nothing about the engines
    for (auto& [id, known] : known_) {
        known.seen_at = ngx_current_msec;
    }
    rounds_ = 0;
    busy_ = true;
    scan("0");
}

void EngineFeed::scan(const std::string& cursor) {
    const std::string pattern = escape_glob(key_prefix_) + "*";
    reader_.command({"SCAN", cursor, "MATCH", pattern, "COUNT", kScanCount},
                    [this](const redisReply& reply) { on_scan(reply); });
}

void EngineFeed::on_scan(const redisReply& reply) {
    const auto parts = elements_of(reply);
    if (parts.size() != 2 || !is_text(*parts[0])) {
        reader_.restart(is_error(reply) ? "SCAN was refused: " + std::string(text_of(reply))
                                        : "an unexpected answer to SCAN");
        return;
    }
    for (const redisReply* key : elements_of(*parts[1])) {
        if (is_text(*key) && text_of(*key).starts_with(key_prefix_)) {
            todo_.emplace_back(text_of(*key).substr(key_prefix_.size()));
        }
    }
    cursor_ = text_of(*parts[0]);
    if (cursor_ == "0") {
        cursor_.clear();
    }
    read_next();
}

void EngineFeed::read_next() {
    if (todo_.empty()) {
        if (cursor_.empty()) {
            end_round();
        } else {
            scan(std::exchange(cursor_, {}));
        }
        return;
    }
    std::vector<std::string> ids;
    std::vector<std::string> keys;
    std::vector<std::string_view> words = {"MGET"};
    while (!todo_.empty() && ids.size() < kBatch) {
        ids.push_back(std::move(todo_.front()));
        keys.push_back(key_prefix_ + ids.back());
        todo_.pop_front();
    }
    words.insert(words.end(), keys.begin(), keys.end());
    reader_.command(std::span<const std::string_view>(words),
                    [this, ids = std::move(ids)](const redisReply& reply) { on_values(ids, reply); });
}

void EngineFeed::on_values(const std::vector<std::string>& ids, const redisReply& reply) {
    const auto values = elements_of(reply);
    if (values.size() != ids.size()) {
        reader_.restart(is_error(reply) ? "MGET was refused: " + std::string(text_of(reply))
                                        : "an unexpected answer to MGET");
        return;
    }
    for (size_t i = 0; i < ids.size(); ++i) {
        if (is_text(*values[i])) {
            take(text_of(*values[i]), &ids[i]);
        } else {
            miss(ids[i]);
        }
    }
    read_next();
}

void EngineFeed::end_round() {
    busy_ = false;
    sink_.round_done();
    tick_.start(kRoundMs);
}

void EngineFeed::on_tick() {
    if (leaving() || busy_ || !subscribed_ || !reader_.ready()) {
        return;
    }
    busy_ = true;
    if (++rounds_ % kRoundsPerScan == 0) {
        scan("0");
        return;
    }
    for (const auto& [id, known] : known_) {
        todo_.push_back(id);
    }
    read_next();
}

// One report, from the channel or (then `expected_id` is given) from an engine's key.
void EngineFeed::take(std::string_view text, const std::string* expected_id) {
    EngineReport report;
    const std::string reason = parse_engine_report(text, report);
    if (!reason.empty()) {
        sink_.malformed(expected_id != nullptr ? *expected_id : claimed_id(text), reason);
        return;
    }
    if (expected_id != nullptr && (report.id != *expected_id || report.state == EngineState::gone)) {
        sink_.malformed(*expected_id, report.id != *expected_id
                                          ? "\"id\": is not that of its key"
                                          : "\"state\": gone is published, never stored");
        return;
    }
    if (sink_.report(report)) {
        known_[report.id] = {.ttl_ms = report.ttl_ms, .seen_at = ngx_current_msec};
    } else {
        known_.erase(report.id);
    }
}

// The key of an engine is not there. The dispatcher forgets it in its own time (it knows whether requests to
// it still succeed); we stop asking for a key that stays away.
void EngineFeed::miss(const std::string& id) {
    const auto found = known_.find(id);
    if (found != known_.end() &&
        ngx_current_msec - found->second.seen_at > ngx_msec_t{kForgetTtls} * found->second.ttl_ms) {
        known_.erase(found);
        sink_.forget(id);
    }
}

}  // namespace llm::nginx::sources
