#include "ngx_module/nginx/token_cache.hpp"

#include <sys/random.h>
#include <sys/types.h>

#include "shared/siphash.hpp"

namespace llm::nginx {
namespace {

struct Entry {
    SipTag tag;
    TokenHash hash;
};

constexpr size_t kEntries = 1024;  // 48 KB; a token has one place, the latest one stays
Entry entries[kEntries];

// Drawn by the first request of a worker: after the fork, so every worker has its own. False when the kernel
// has no random bytes to give.
bool draw_key(SipKey& key) {
    return getrandom(key.data(), sizeof(key), GRND_NONBLOCK) == static_cast<ssize_t>(sizeof(key));
}

}  // namespace

TokenHash cached_hash(std::string_view token) {
    static SipKey key;
    static const bool usable = draw_key(key);
    if (!usable) {
        return hash_token(token);
    }
    const SipTag tag = siphash128(key, token);
    Entry& entry = entries[tag[0] % kEntries];
    if (entry.tag != tag) {
        entry = {tag, hash_token(token)};
    }
    return entry.hash;
}

}  // namespace llm::nginx
