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
    EXPECT_EQ(sources_awaited_until(test.zone), 0);
    EXPECT_TRUE(speak(kClientSource).empty());
}

TEST_F(StartUp, TheLastSourceWakesEverybody) {
    const uint32_t other = test.attach(1001);
    expect(kClientSource | kEngineSource, 5000);
    EXPECT_EQ(sources_awaited_until(test.zone), 5000);
    EXPECT_TRUE(speak(kEngineSource).empty());
    EXPECT_TRUE(speak(kEngineSource).empty());
    EXPECT_EQ(sources_awaited_until(test.zone), 5000);
    const WakeSet wakes = speak(kClientSource);
    EXPECT_TRUE(wakes.contains(test.process) && wakes.contains(other));
    EXPECT_EQ(sources_awaited_until(test.zone), 0);
    EXPECT_TRUE(speak(kClientSource).empty());
}

}  // namespace
}  // namespace llm::core
