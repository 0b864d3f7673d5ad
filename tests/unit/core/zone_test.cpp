#include <cstring>

#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

TEST(Plan, DefaultZoneHoldsWhatIsPromised) {
    const ZonePlan plan = plan_zone(64u << 20);
    EXPECT_TRUE(plan.ok);
    EXPECT_GE(plan.clients, 100'000u);
    EXPECT_GE(plan.requests, 16'000u);
    EXPECT_EQ(plan.processes, 1024u);
}

TEST(Plan, AMillionClientsFitInABigZone) {
    EXPECT_GE(plan_zone(600u << 20).clients, 1'000'000u);
}

TEST(Plan, TooSmallNamesTheMinimum) {
    const ZonePlan plan = plan_zone(64 << 10);
    EXPECT_FALSE(plan.ok);
    EXPECT_GT(plan.min_bytes, size_t{64} << 10);
    EXPECT_TRUE(plan_zone(plan.min_bytes).ok) << plan.min_bytes;
    EXPECT_FALSE(plan_zone(plan.min_bytes - 1).ok);
    EXPECT_LT(plan.min_bytes, size_t{1} << 20);
}

TEST(Plan, EverySizeAboveTheMinimumIsUsable) {
    const size_t min = plan_zone(1).min_bytes;
    for (size_t bytes = min; bytes < min + (4u << 20); bytes += 39'321) {
        const ZonePlan plan = plan_zone(bytes);
        ASSERT_TRUE(plan.ok) << bytes;
        std::unique_ptr<void, FreeDeleter> memory(std::aligned_alloc(64, (bytes + 63) / 64 * 64));
        ASSERT_TRUE(format_zone(memory.get(), bytes)) << bytes;
    }
}

TEST(ZoneTest, AttachChecksMagicSizeAndLayout) {
    TestZone z(2u << 20);
    Zone other;
    const LockOps ops{[](void*) {}, [](void*) {}, nullptr};
    EXPECT_TRUE(other.attach(z.memory(), z.bytes(), ops));
    EXPECT_FALSE(other.attach(z.memory(), z.bytes() - 1, ops));
    std::vector<unsigned char> junk(z.bytes(), 0x5a);
    EXPECT_FALSE(Zone().attach(junk.data(), junk.size(), ops));
}

TEST(WakeSetTest, VisitsEachSlotOnce) {
    WakeSet set;
    EXPECT_TRUE(set.empty());
    set.add(0);
    set.add(63);
    set.add(64);
    set.add(1023);
    set.add(64);
    std::vector<uint32_t> seen;
    set.for_each([&](uint32_t slot) { seen.push_back(slot); });
    EXPECT_EQ(seen, (std::vector<uint32_t>{0, 63, 64, 1023}));
    set.clear();
    EXPECT_TRUE(set.empty());
}

}  // namespace
}  // namespace llm::core
