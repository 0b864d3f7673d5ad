#include "ngx_module/core/start_up.hpp"

#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

class StartUp : public ::testing::Test {
  protected:
    void expect(uint32_t sources, int64_t until_us) {
        const ZoneLock lock(test.zone);
        expect_sources(lock, sources, until_us);
    }
    WakeSet speak(Source source) {
        WakeSet wakes;
        source_spoke(test.zone, source, wakes);
        return wakes;
    }

    TestZone test;
};

TEST_F(StartUp, AZoneWithoutSourcesAwaitsNothing) {
    EXPECT_FALSE(awaits_sources(test.zone, test.now));
    EXPECT_TRUE(speak(kClientSource).empty());
}

TEST_F(StartUp, TheLastSourceWakesEverybody) {
    const uint32_t other = test.attach(1001);
    expect(kClientSource | kEngineSource, test.now + 1000);
    EXPECT_TRUE(awaits_sources(test.zone, test.now));
    EXPECT_TRUE(speak(kEngineSource).empty());
    EXPECT_TRUE(speak(kEngineSource).empty());
    EXPECT_TRUE(awaits_sources(test.zone, test.now));
    const WakeSet wakes = speak(kClientSource);
    EXPECT_TRUE(wakes.contains(test.process) && wakes.contains(other));
    EXPECT_FALSE(awaits_sources(test.zone, test.now));
    EXPECT_TRUE(speak(kClientSource).empty());
}

TEST_F(StartUp, WaitingHasAnEnd) {
    expect(kClientSource, test.now + 1000);
    EXPECT_EQ(sources_awaited_until(test.zone), test.now + 1000);
    EXPECT_TRUE(awaits_sources(test.zone, test.now + 999));
    EXPECT_FALSE(awaits_sources(test.zone, test.now + 1000));
}

}  // namespace
}  // namespace llm::core
