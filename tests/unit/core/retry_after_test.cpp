// Does Retry-After spread those who obey it?
#include <queue>

#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

// 20 seats of 2 s each: 10 requests/s. 60 s of arrivals at 15/s, then 8/s. Those who are refused come back
// when they were told to; those told not to come back stay away.
class RetryAfter : public ::testing::TestWithParam<ThresholdScope> {};

// Scope `token`: one key that a whole application shares. Scope `queue`: 40 keys, one queue.
TEST_P(RetryAfter, ThoseWhoObeyAreAdmittedAfterABurst) {
    TestZone z(16u << 20);
    Settings settings;
    settings.threshold_scope = GetParam();
    z.settings(settings);
    const uint32_t keys = GetParam() == ThresholdScope::token ? 1 : 40;
    std::vector<TestClient> clients;
    for (uint32_t id = 0; id < keys; ++id) {
        clients.push_back({.id = id, .threshold = 100});
    }
    z.load(clients);
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 20}}));
    struct Event {
        int64_t at;
        int kind;  // 0 fresh arrival, 1 comes back, 2 ends
        uint32_t client;
        Ticket ticket;
        bool operator<(const Event& other) const { return at > other.at; }
    };
    std::priority_queue<Event> events;
    const int64_t begin = z.now;
    uint64_t random = 7;
    auto draw = [&random](uint32_t n) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        return static_cast<uint32_t>((random >> 33) % n);
    };
    for (int64_t at = 0; at < 240'000'000;) {
        events.push({begin + at, 0, draw(keys), {}});
        const int64_t mean = at < 60'000'000 ? 1'000'000 / 15 : 1'000'000 / 8;
        at += mean / 2 + draw(static_cast<uint32_t>(mean));
    }
    uint32_t came_back = 0;
    uint32_t admitted = 0;
    int64_t next_sweep = begin;
    while (!events.empty()) {
        const Event event = events.top();
        events.pop();
        z.now = event.at;
        if (z.now >= next_sweep) {
            z.tick();
            next_sweep = z.now + 250'000;
        }
        if (event.kind == 2) {
            z.end(event.ticket, 100, 100);
        } else {
            const Verdict v = z.send(event.client);
            const bool later = event.at > begin + 60'000'000;
            came_back += event.kind == 1 && later ? 1 : 0;
            admitted += event.kind == 1 && later && v.decision != Decision::rejected ? 1 : 0;
            if (v.decision == Decision::granted) {
                events.push({z.now + 1'800'000 + draw(400'000), 2, event.client, v.ticket});
            } else if (v.decision == Decision::rejected && v.should_retry) {
                events.push({z.now + int64_t{v.retry_after_ms} * 1000, 1, event.client, {}});
            }
        }
        std::vector<Ticket> taken;
        const auto cookies = z.take_all(&taken);
        for (size_t i = 0; i < taken.size(); ++i) {
            events.push({z.now + 1'800'000 + draw(400'000), 2, static_cast<uint32_t>(cookies[i]), taken[i]});
        }
    }
    RecordProperty("came_back", static_cast<int>(came_back));
    std::printf("%u came back after the burst, %u admitted\n", came_back, admitted);
    ASSERT_GT(came_back, 20u);
    EXPECT_GE(admitted, 0.9 * came_back);
}

INSTANTIATE_TEST_SUITE_P(Scopes, RetryAfter, ::testing::Values(ThresholdScope::token, ThresholdScope::queue));

}  // namespace
}  // namespace llm::core
