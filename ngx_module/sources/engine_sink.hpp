// Puts engine reports into the zone and gives announced engines an address: numbers at once, names through
// nginx's resolver, asked again now and then.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "ngx_module/core/engines.hpp"
#include "ngx_module/sources/engine_url.hpp"
#include "ngx_module/sources/hooks.hpp"
#include "ngx_module/sources/host_resolver.hpp"
#include "ngx_module/sources/log_text.hpp"
#include "ngx_module/sources/loop.hpp"
#include "shared/engine_report.hpp"

namespace llm::nginx::sources {

class EngineSink {
  public:
    EngineSink(const Hooks& hooks, ngx_resolver_t* resolver);

    // A report that was well-formed. One short hold of the zone's lock, or two. False when the zone does not
    // know the engine afterwards.
    bool report(const EngineReport& report);

    // A report that was not: counted, and logged once a minute for each `who`.
    void malformed(std::string_view who, std::string_view reason);

    // Whether Redis can be read at present.
    void redis_state(bool up);

    // All engines that Redis knows have been reported, or it cannot be read.
    void round_done();

    // The feed no longer hears of this engine: its name need not be resolved any more.
    void forget(const std::string& id) { places_.erase(id); }

  private:
    struct Place {
        explicit Place(ngx_resolver_t* resolver) : lookup(resolver) {}
        std::string url;
        EngineUrl parts;
        core::EngineMemo memo;  // the engine
        uint32_t generation = 0;
        PeerAddress address;
        time_t resolved_at = 0;  // nginx's seconds
        HostResolver lookup;
    };

    void locate(const EngineReport& report, const core::ApplyResult& result);
    void resolve(const std::string& id, Place& place);
    void publish(const std::string& id, const Place& place);
    void on_refresh();
    // What one complaint is about: a flood of one kind must not hide another.
    enum class About : char { form = 'f', conflict = 'c', room = 'r', name = 'n' };
    bool may_log(About about, std::string_view who);

    const Hooks& hooks_;
    ngx_resolver_t* resolver_;
    // by engine id; Place stays where it is while its look-up runs
    std::unordered_map<std::string, std::unique_ptr<Place>> places_;
    std::unordered_map<std::string, OncePerMinute> complaints_;
    Timer refresh_;
    std::optional<bool> up_;  // as last told to the zone, which may hold another process's word
};

}  // namespace llm::nginx::sources
