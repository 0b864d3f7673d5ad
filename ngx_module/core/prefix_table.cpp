// Which engine has computed which beginnings of prompts lately, so that its prefix cache can spare it the
// work.
//
// A set-associative table of hints: key → engine and time, the least recently used of eight is replaced.
// Nobody tells us what an engine's cache has dropped; an entry counts for ten minutes after its last use, and
// not beyond a restart of the engine. A crash can lose a hint but not tear one, so nothing is rebuilt.
#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

// An entry's word: 32 bits of key, 12 of engine, 20 of time in ticks.
constexpr int64_t kTickUs = 4'000'000;
constexpr uint32_t kLifeTicks = 150;  // ten minutes
constexpr uint32_t kTickBits = 20;
constexpr uint32_t kTickMask = (1u << kTickBits) - 1;
constexpr uint32_t kEngineMask = 0xfff;
static_assert(kMaxZoneEngines <= kEngineMask + 1);

uint32_t tick_of(int64_t us) {
    return static_cast<uint32_t>(us / kTickUs) & kTickMask;
}

// Ticks from `earlier` to `later`, up to a wrap of 48 days.
uint32_t ticks_between(uint32_t earlier, uint32_t later) {
    return (later - earlier) & kTickMask;
}

uint32_t key_of(PrefixEntry e) {
    return static_cast<uint32_t>(e.word >> 32);
}
uint32_t engine_of(PrefixEntry e) {
    return static_cast<uint32_t>(e.word >> kTickBits) & kEngineMask;
}
uint32_t tick_of(PrefixEntry e) {
    return static_cast<uint32_t>(e.word) & kTickMask;
}
PrefixEntry make_entry(uint32_t key, uint32_t engine, uint32_t tick) {
    return {uint64_t{key} << 32 | engine << kTickBits | tick};
}

PrefixSet& set_of(const Tables& t, uint32_t key) {
    return t.prefixes[uint64_t{mix32(key)} * t.header.plan.prefix_sets >> 32];
}

bool still_counts(const Core& c, PrefixEntry entry) {
    const uint32_t age = ticks_between(tick_of(entry), tick_of(c.now));
    const Engine& e = c.engines[engine_of(entry)];
    return age <= kLifeTicks && e.used != 0 &&
           c.now / kTickUs - age >= e.closed_us / kTickUs;  // not before it started
}

// What key `i` says of the whole prompt.
double part_of(const PrefixKeys& keys, uint32_t i) {
    return static_cast<double>(PrefixKeys::covered(i)) / keys.bytes;
}

}  // namespace

PrefixKeys keys_for_model(const PrefixKeys& keys, uint32_t model) {
    PrefixKeys own = keys;
    for (uint32_t i = 0, count = keys.count(); i < count; ++i) {
        own.key[i] = mix32(uint64_t{keys.key[i]} << 32 | model);
        own.key[i] += own.key[i] == 0 ? 1 : 0;  // 0 stands for an unused entry
    }
    return own;
}

PrefixHits find_prefix(const Core& c, const PrefixKeys& keys) {
    PrefixHits hits;
    hits.count = 0;
    for (uint32_t i = keys.count(); i-- > 0;) {
        for (const PrefixEntry entry : set_of(c, keys.key[i]).ways) {
            if (hits.count < PrefixHits::kMost && key_of(entry) == keys.key[i] && still_counts(c, entry) &&
                hits.part_on(engine_of(entry)) == 0) {
                hits.engines[hits.count] = engine_of(entry);
                hits.parts[hits.count++] = part_of(keys, i);
            }
        }
    }
    return hits;
}

double prefix_part(const Core& c, const PrefixKeys& keys, uint32_t engine) {
    for (uint32_t i = keys.count(); i-- > 0;) {
        for (const PrefixEntry entry : set_of(c, keys.key[i]).ways) {
            if (key_of(entry) == keys.key[i] && engine_of(entry) == engine && still_counts(c, entry)) {
                return part_of(keys, i);
            }
        }
    }
    return 0;
}

void remember_prefix(Core& c, const PrefixKeys& keys, uint32_t engine) {
    const uint32_t now = tick_of(c.now);
    for (uint32_t i = 0, count = keys.count(); i < count; ++i) {
        PrefixEntry* place = nullptr;
        uint32_t age = 0;
        for (PrefixEntry& entry : set_of(c, keys.key[i]).ways) {
            if (key_of(entry) == keys.key[i] && engine_of(entry) == engine) {
                place = &entry;
                break;
            }
            const uint32_t unused_for = entry.word == 0 ? kTickMask : ticks_between(tick_of(entry), now);
            if (place == nullptr || unused_for > age) {
                place = &entry;
                age = unused_for;
            }
        }
        *place = make_entry(keys.key[i], engine, now);
    }
}

}  // namespace llm::core
