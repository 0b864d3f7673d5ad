// A zone that routes by prefixes, and prompts that share their beginnings.
#pragma once

#include "ngx_module/core/core.hpp"
#include "tests/unit/core/harness.hpp"

namespace llm::core {

constexpr uint32_t kPromptTokens = 2000;
constexpr uint32_t kPromptBytes = 8192;

// Keys of a body whose first `shared` bytes are those of `conversation`, and whose rest nobody else has.
inline PrefixKeys keys_for(uint32_t conversation, uint32_t shared = kPromptBytes, uint32_t bytes = kPromptBytes) {
    static uint32_t unique = 0;
    PrefixKeys keys;
    keys.bytes = bytes;
    const uint32_t rest = 0x80000000u + ++unique * 64;
    for (uint32_t i = 0; i < keys.count(); ++i) {
        keys.key[i] = PrefixKeys::covered(i) <= shared ? 1 + conversation * 64 + i : rest + i;
    }
    return keys;
}

class Prefix : public WithTwoClients {
  protected:
    void SetUp() override {
        WithTwoClients::SetUp();
        settings.routing = RoutingPolicy::prefix;
        settings.aging_us = -1;
        z.settings(settings);
    }

    // `keys` must live until it is sent.
    RequestArgs asking(const PrefixKeys& keys) {
        RequestArgs a = z.args();
        a.prompt_tokens = kPromptTokens;
        a.max_output_tokens = 1;
        a.stream = false;
        a.prefix = &keys;
        return a;
    }
    Verdict send(const PrefixKeys& keys, uint32_t client = 1) { return z.send(client, asking(keys)); }
    // The engine that a request goes to that ends at once.
    uint32_t engine_for(const PrefixKeys& keys) {
        const Verdict v = send(keys);
        EXPECT_EQ(v.decision, Decision::granted);
        z.end(v.ticket);
        return v.engine;
    }

    Settings settings;
};

}  // namespace llm::core
