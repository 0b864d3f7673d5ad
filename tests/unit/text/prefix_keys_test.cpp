#include "ngx_module/core/text/prefix_keys.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <string>

namespace llm::core {
namespace {

std::string noise(size_t bytes, uint32_t seed) {
    std::mt19937 random(seed);
    std::string text(bytes, ' ');
    std::generate(text.begin(), text.end(), [&] { return static_cast<char>(random()); });
    return text;
}

PrefixKeys keys_of(std::string_view body) {
    PrefixHash hash;
    hash.feed(body);
    return hash.keys();
}

bool same(const PrefixKeys& a, const PrefixKeys& b) {
    return a.bytes == b.bytes && std::equal(a.key, a.key + PrefixKeys::kMost, b.key);
}

TEST(PrefixKeys, ThereIsOneForEachLengthThatTheBodyReaches) {
    EXPECT_EQ(keys_of("").count(), 0u);
    EXPECT_EQ(keys_of(noise(1023, 1)).count(), 0u);
    EXPECT_EQ(keys_of(noise(1024, 1)).count(), 1u);
    EXPECT_EQ(keys_of(noise(2047, 1)).count(), 1u);
    EXPECT_EQ(keys_of(noise(5000, 1)).count(), 3u);
    EXPECT_EQ(keys_of(noise(65535, 1)).count(), 6u);
    EXPECT_EQ(keys_of(noise(65536, 1)).count(), 7u);
    EXPECT_EQ(keys_of(noise((1 << 20) - 1, 1)).count(), 10u);
    const PrefixKeys long_one = keys_of(noise(2'000'001, 1));
    EXPECT_EQ(long_one.count(), 11u);
    EXPECT_EQ(long_one.bytes, 2'000'001u);
    std::set<uint32_t> different(long_one.key, long_one.key + PrefixKeys::kMost);
    EXPECT_EQ(different.size(), 11u);
    EXPECT_EQ(different.count(0), 0u);
}

TEST(PrefixKeys, AreTheSameInWhateverPiecesTheBodyComes) {
    std::mt19937 random(7);
    for (uint32_t round = 0; round < 100; ++round) {
        const std::string body = noise(random() % 1'200'000, round);
        const PrefixKeys whole = keys_of(body);
        PrefixHash hash;
        for (size_t at = 0; at < body.size();) {
            const size_t most = random() % 3 == 0 ? 20 : 20'000;
            const size_t size = std::min<size_t>(random() % most, body.size() - at);
            hash.feed(std::string_view(body).substr(at, size));
            at += size;
        }
        ASSERT_TRUE(same(hash.keys(), whole)) << round;
    }
}

TEST(PrefixKeys, TellWhereTwoBodiesPart) {
    const std::string body = noise((1 << 20) + 70, 3);
    const PrefixKeys keys = keys_of(body);
    for (size_t at : {0, 1, 15, 16, 1023, 1024, 3000, 8191, 65535, 65536, 500'000, (1 << 20) - 1, 1 << 20,
                      (1 << 20) + 69}) {
        std::string other = body;
        other[at] = static_cast<char>(other[at] ^ 1);
        const PrefixKeys others = keys_of(other);
        for (uint32_t i = 0; i < PrefixKeys::kMost; ++i) {
            EXPECT_EQ(keys.key[i] == others.key[i], at >= PrefixKeys::covered(i)) << at << " key " << i;
        }
    }
    // a body that goes on has the keys of its beginning
    const PrefixKeys shorter = keys_of(std::string_view(body).substr(0, 10'000));
    for (uint32_t i = 0; i < shorter.count(); ++i) {
        EXPECT_EQ(shorter.key[i], keys.key[i]);
    }
}

TEST(PrefixKeys, HardlyEverMeet) {
    std::set<uint32_t> seen;
    std::string body(1024, '{');
    for (int i = 0; i < 20'000; ++i) {
        body.replace(500, 5, std::to_string(10'000 + i));
        seen.insert(keys_of(body).key[0]);
    }
    EXPECT_GE(seen.size(), 19'999u);  // 0.05 pairs are to be expected
}

}  // namespace
}  // namespace llm::core
