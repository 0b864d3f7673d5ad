#include "ngx_module/core/engine_slots.hpp"

#include <algorithm>

namespace llm::core {

uint32_t find_static(const Core& c, std::string_view url) {
    return find_engine(c, [&](const Engine& e) { return e.is_static != 0 && view(e.url) == url; });
}

uint32_t find_id(const Core& c, std::string_view id) {
    return find_engine(c, [&](const Engine& e) { return view(e.id) == id; });
}

uint32_t new_engine(Core& c) {
    for (uint32_t i = 0; i < c.header.plan.engines; ++i) {
        Engine& e = c.engines[i];
        if (e.used == 0) {
            const uint32_t generation = e.generation + 1;
            c.header.engines_version++;
            e = Engine{};
            e.generation = generation;
            c.header.engine_end = i >= c.header.engine_end ? i + 1 : c.header.engine_end;
            std::atomic_signal_fence(std::memory_order_seq_cst);
            e.org = kNone;
            e.success_us = c.now;
            e.closed_us = c.now;
            forgive_engine(c, i);  // that was another one
            return i;
        }
    }
    return kNone;
}

void set_place(Engine& e, std::string_view host, std::string_view key, bool tls,
               const EngineAddress& address) {
    copy_text(e.host, host);
    copy_text(e.key, key);
    e.tls = tls ? 1 : 0;
    e.address = address;
    e.place_version++;
}

std::string_view key_at(const Engine& e, const EnginePlace& place) {
    return e.is_static != 0 && place.key.empty() ? view(e.key) : place.key;
}

void set_org(Engine& e, uint32_t org) {
    e.org = org;
    e.place_version++;
}

bool set_models(Core& c, uint32_t engine, const uint32_t* list, uint32_t count) {
    Engine& e = c.engines[engine];
    if (count == e.model_count && std::equal(list, list + count, e.models)) {
        return false;
    }
    unregister_models(c, engine);
    std::copy(list, list + count, e.models);
    e.model_count = count;
    register_models(c, engine);
    return true;
}

uint32_t add_model(uint32_t* list, uint32_t count, uint32_t model) {
    if (model == kNone || count >= kMaxEngineModels || std::find(list, list + count, model) != list + count) {
        return count;
    }
    list[count] = model;
    return count + 1;
}

void set_max_running(Core& c, Engine& e, uint32_t most) {
    const bool was_full = e.limit >= e.max_running;
    e.max_running = most;
    if (was_full && minimum_of(c, e) <= 0) {
        e.limit = most;
    }
    clamp_limit(c, e);
}

void free_engine_if_idle(Core& c, uint32_t engine) {
    Engine& e = c.engines[engine];
    if (e.leaving != 0 && e.held == 0) {
        e.used = 0;
    }
}

void leave(Core& c, uint32_t engine) {
    Engine& e = c.engines[engine];
    c.header.engines_version++;
    LLM_LABEL();
    e.leaving = 1;
    LLM_LABEL();
    unregister_models(c, engine);
    refresh_domains(c);
    free_engine_if_idle(c, engine);
}

}  // namespace llm::core
