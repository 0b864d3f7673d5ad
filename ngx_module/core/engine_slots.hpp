// Engines in their slots of the zone: what the configuration (engine_specs.cpp) and reports (engine_reports.cpp) both change.
#pragma once

#include "ngx_module/core/core.hpp"

namespace llm::core {

inline std::string_view view(const char* text) {
    return text;
}

// The first engine in service for which wanted() holds; kNone if there is none.
template <class Wanted>
uint32_t find_engine(const Core& c, Wanted wanted) {
    for (uint32_t i = 0; i < c.header.engine_end; ++i) {
        const Engine& e = c.engines[i];
        if (e.used != 0 && e.leaving == 0 && wanted(e)) {
            return i;
        }
    }
    return kNone;
}

uint32_t find_static(const Core& c, std::string_view url);
uint32_t find_id(const Core& c, std::string_view id);

// A free slot, empty but for its new generation; kNone if there is none. It is in service once `used` is set.
uint32_t new_engine(Core& c);

void set_place(Engine& e, std::string_view host, std::string_view key, bool tls, const EngineAddress& address);
// The key for an engine that says where it is: that of its own llm_engine stays unless there is one for its
// id.
std::string_view key_at(const Engine& e, const EnginePlace& place);
void set_org(Engine& e, uint32_t org);
// The engine's models become `list` (static ones first). False when nothing changed.
bool set_models(Core& c, uint32_t engine, const uint32_t* list, uint32_t count);
// Appends `model` unless it is kNone, there already, or one too many. Returns the new count.
uint32_t add_model(uint32_t* list, uint32_t count, uint32_t model);
// Applies a new upper bound. Without a minimum the limit is the bound, unless the engine itself has refused
// lately.
void set_max_running(Core& c, Engine& e, uint32_t most);

// Takes no new requests; forgotten once its last lease ends.
void leave(Core& c, uint32_t engine);

}  // namespace llm::core
