// A zone in private memory with a fake clock, and short names for the calls that tests make.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ngx_module/core/dispatcher.hpp"

namespace llm::core {

struct FreeDeleter {
    void operator()(void* memory) const { std::free(memory); }
};

inline TokenHash hash_of(uint32_t client) {
    return hash_token("token-" + std::to_string(client));
}

struct TestClient {
    uint32_t id = 0;
    int32_t priority = 1;
    int32_t threshold = kUnlimited;
    double weight = 0;
    int32_t band = 0;
    uint32_t max_running = 0;
    uint32_t tokens_per_minute = 0;
    std::string organisation = {};
    std::string models = {};
    int64_t expires_at = 0;
    bool disabled = false;
};

class TestZone {
  public:
    explicit TestZone(size_t bytes = 8u << 20);
    ~TestZone();
    uint32_t attach(int32_t pid);
    void settings(const Settings& s);
    void load(const std::vector<TestClient>& clients);
    static ClientRow row(const TestClient& client);

    struct Static {
        std::string url;
        std::vector<std::string> models = {"m"};
        uint32_t max_running = 64;
        std::string org = {};
        bool backup = false;
        std::string id = {};
        uint64_t keys = 0;
    };

    bool engines(const std::vector<Static>& list);
    static EngineReport report(const std::string& id, uint64_t boot = 1, uint64_t seq = 1);
    ApplyResult apply(
        const EngineReport& r);  // as a source of reports that remembers where the last one went
    ClientView client(uint32_t id);

    // What submit() needs beyond the client; change before calling send().
    RequestArgs args();

    Verdict send(uint32_t client_id, RequestArgs a);
    Verdict send(uint32_t client_id) { return send(client_id, args()); }
    RequestSummary end(Ticket ticket, uint32_t prompt = 100, uint32_t completion = 100,
                       Outcome outcome = Outcome::completed);
    void abandon(Ticket ticket, Outcome outcome);
    bool drop(Ticket ticket);

    // All events of a process.
    std::vector<Event> events(uint32_t of);
    std::vector<Event> events() { return events(process); }

    // Takes up everything that was granted; the cookies in order.
    std::vector<uint64_t> take_all(std::vector<Ticket>* tickets = nullptr);

    SweepResult tick(int64_t us = 0, bool beat = true);

    // The same as tick(us) in steps between which nothing stands still. Returns how many engines were lost in
    // all.
    SweepResult pass(int64_t us);

    QueueTotals totals();
    EngineSnapshot engine(uint32_t index);
    std::vector<std::string> ids();
    std::string check();

    Zone zone;
    int64_t now = 1'000'000'000;
    int64_t wall = 1'763'700'000;
    WakeSet wakes;
    uint32_t process = kNone;

    void* memory() { return memory_.get(); }
    size_t bytes() const { return bytes_; }

  private:
    static std::vector<std::unique_ptr<std::string>>& names();

    std::unique_ptr<void, FreeDeleter> memory_;
    size_t bytes_;
    uint32_t random_ = 0;
    std::map<std::pair<std::string, std::string>, EngineMemo> memos_;  // by id and URL
};

// Two clients, and Redis there.
class WithTwoClients : public ::testing::Test {
  protected:
    void SetUp() override {
        z.load({{.id = 1}, {.id = 2}});
        ZoneLock lock(z.zone);
        set_redis_state(lock, true, z.now);
    }
    TestZone z;
};

}  // namespace llm::core
