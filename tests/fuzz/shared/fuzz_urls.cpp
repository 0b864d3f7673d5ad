// URLs of Redis and of engines: what is accepted has the parts that the header promises.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "ngx_module/sources/engine_url.hpp"
#include "shared/redis_url.hpp"

namespace {

void require(bool condition) {
    if (!condition) {
        std::abort();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    llm::RedisUrl redis;
    const std::string reason = llm::parse_redis_url(text, redis);
    if (reason.empty()) {
        require(redis.host.empty() != redis.socket_path.empty());
        require(redis.port != 0);
    } else {
        require(reason.find('\n') == std::string::npos);
    }
    llm::nginx::sources::EngineUrl engine;
    if (llm::nginx::sources::parse_engine_url(text, engine)) {
        require(!engine.host.empty() && engine.port != 0 && text.find(engine.authority) != std::string_view::npos);
    }
    return 0;
}
