#include "ngx_module/sources/engine_sink.hpp"

#include <algorithm>
#include <cstring>

#include "ngx_module/core/start_up.hpp"

namespace llm::nginx::sources {
namespace {

constexpr ngx_msec_t kRefreshMs = 1'000;  // how often it is seen whose name must be resolved anew: when its TTL has ended
constexpr time_t kAskAgainS = 10;         // after a name server that knew no answer
constexpr size_t kMaxComplaints = 4096;

}  // namespace

EngineSink::EngineSink(const Hooks& hooks, ngx_resolver_t* resolver)
    : hooks_(hooks),
      resolver_(resolver),
      refresh_([](void* self) { static_cast<EngineSink*>(self)->on_refresh(); }, this) {
    refresh_.start(kRefreshMs);
}

bool EngineSink::report(const EngineReport& report) {
    core::WakeSet wakes;
    core::ApplyResult result;
    const int64_t now = hooks_.now_us();
    const auto known = places_.find(report.id);
    const bool same_place = known != places_.end() && known->second->url == report.url;
    const core::EngineMemo memo = same_place ? known->second->memo : core::EngineMemo();
    {
        const core::ZoneLock lock(*hooks_.zone);
        result = core::apply_report(lock, report, nullptr, now, wakes, memo);
    }
    hooks_.wake(wakes);

    const std::string id = printable(report.id);
    ngx_log_t* log = ngx_cycle->log;
    switch (result.what) {
        case core::Applied::created:
            ngx_log_error(NGX_LOG_NOTICE, log, 0, "llm: engine \"%s\" at %s has announced itself", id.c_str(),
                          report.url.c_str());
            break;
        case core::Applied::gone:
            ngx_log_error(NGX_LOG_NOTICE, log, 0, "llm: engine \"%s\" has left", id.c_str());
            forget(report.id);
            return false;
        case core::Applied::unknown:
            return false;
        case core::Applied::conflict_won:
            if (may_log(About::conflict, report.id)) {
                ngx_log_error(NGX_LOG_WARN, log, 0,
                              "llm: engine \"%s\" is at %s now: the start of that one is later", id.c_str(),
                              report.url.c_str());
            }
            break;
        case core::Applied::conflict_lost:
            if (may_log(About::conflict, report.id)) {
                ngx_log_error(
                    NGX_LOG_WARN, log, 0,
                    "llm: two engines call themselves \"%s\": the one at %s is ignored, as its start "
                    "is not later or the other has an llm_engine",
                    id.c_str(), report.url.c_str());
            }
            return true;
        case core::Applied::full:
            if (may_log(About::room, report.id)) {
                ngx_log_error(NGX_LOG_ERR, log, 0,
                              "llm: engine \"%s\" is ignored: the zone has no room for it or its models; "
                              "make llm_zone larger",
                              id.c_str());
            }
            return false;
        case core::Applied::updated:
        case core::Applied::old:
            break;
    }
    if (result.below_minimum) {
        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "llm: engine \"%s\" is below llm_min_throughput even with one request", id.c_str());
    }
    if (result.engine != core::kNone) {
        locate(report, result);
    }
    return true;
}

// Makes sure that the engine's place in the zone is that of the report's URL. The first report that this
// process sees of an engine always sets it: another configuration may have another key for it.
void EngineSink::locate(const EngineReport& report, const core::ApplyResult& result) {
    std::unique_ptr<Place>& slot = places_[report.id];
    if (slot && !result.needs_address && slot->url == report.url && slot->memo.engine == result.engine &&
        slot->generation == result.generation) {
        slot->memo = result.memo;
        return;
    }
    if (!slot || slot->url != report.url) {
        slot = std::make_unique<Place>(resolver_);
        slot->url = report.url;
        if (!parse_engine_url(report.url, slot->parts)) {
            malformed(report.id, "\"url\": not http(s)://host[:port]");
            places_.erase(report.id);
            return;
        }
    }
    slot->generation = result.generation;
    slot->memo = result.memo;
    if (slot->address.length > 0) {
        publish(report.id, *slot);
    } else if (!slot->lookup.busy()) {
        resolve(report.id, *slot);
    }
}

void EngineSink::resolve(const std::string& id, Place& place) {
    place.resolved_at = ngx_time();
    place.lookup.resolve(
        place.parts.host, place.parts.port,
        [this, id, target = &place](const HostAddresses& found, const char* error) {
            if (error != nullptr) {
                if (may_log(About::name, id)) {
                    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                                  "llm: engine \"%s\": host \"%s\" cannot be resolved: %s",
                                  printable(id).c_str(), target->parts.host.c_str(), error);
                }
                return;  // an old address stays
            }
            // one of several addresses, and the same one as long as it is there
            for (const PeerAddress& address : found) {
                if (address.length == target->address.length &&
                    std::memcmp(&address.storage, &target->address.storage, address.length) == 0) {
                    return;
                }
            }
            // nginx's resolver gives them in any order; as for engines that are listed, one of IPv4 is taken first
            const auto v4 = std::find_if(found.begin(), found.end(), [](const PeerAddress& address) {
                return address.get()->sa_family == AF_INET;
            });
            target->address = v4 != found.end() ? *v4 : found.front();
            publish(id, *target);
        });
}

void EngineSink::publish(const std::string& id, const Place& place) {
    core::EnginePlace out;
    out.host = place.parts.authority;
    out.key = hooks_.engine_key != nullptr ? hooks_.engine_key(id) : std::string_view{};
    out.tls = place.parts.tls;
    out.address.length = std::min<uint32_t>(place.address.length, sizeof(out.address.sockaddr));
    std::memcpy(out.address.sockaddr, &place.address.storage, out.address.length);
    core::WakeSet wakes;
    const int64_t now = hooks_.now_us();
    {
        const core::ZoneLock lock(*hooks_.zone);
        core::set_engine_address(lock, place.memo.engine, place.generation, out, now, wakes);
    }
    hooks_.wake(wakes);
}

void EngineSink::on_refresh() {
    if (leaving()) {
        return;
    }
    refresh_.start(kRefreshMs);
    PeerAddress numeric;
    for (const auto& [id, place] : places_) {
        const time_t valid_until = place->lookup.valid_until();
        const bool due = ngx_time() > (valid_until != 0 ? valid_until : place->resolved_at + kAskAgainS);
        if (due && !place->lookup.busy() && !parse_numeric_address(place->parts.host, 0, numeric)) {
            resolve(id, *place);
        }
    }
}

void EngineSink::malformed(std::string_view who, std::string_view reason) {
    core::count_bad_report(*hooks_.zone);
    if (may_log(About::form, who)) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0, "llm: report of engine \"%s\" ignored: %s",
                      printable(who).c_str(), printable(reason, 256).c_str());
    }
}

void EngineSink::redis_state(bool up) {
    if (up_ == up) {
        return;
    }
    up_ = up;
    const int64_t now = hooks_.now_us();
    const core::ZoneLock lock(*hooks_.zone);
    core::set_redis_state(lock, up, now);
}

void EngineSink::round_done() {
    core::WakeSet wakes;
    core::source_spoke(*hooks_.zone, core::kEngineSource, wakes);
    hooks_.wake(wakes);
}

bool EngineSink::may_log(About about, std::string_view who) {
    if (complaints_.size() >= kMaxComplaints) {
        complaints_.clear();  // names are free to invent; memory is not
    }
    return complaints_[static_cast<char>(about) + std::string(who)].pass();
}

}  // namespace llm::nginx::sources
