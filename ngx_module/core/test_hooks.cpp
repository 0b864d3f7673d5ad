// Test builds only: labels and the grant log.
#include "ngx_module/core/core.hpp"

#if LLM_TEST_HOOKS

// made by the linker around the section of the labels
extern "C" {
extern const llm::core::Label __start_llm_labels[] __attribute__((visibility("hidden")));
extern const llm::core::Label __stop_llm_labels[] __attribute__((visibility("hidden")));
}

namespace llm::core {

void (*test_hook)(const Label& label) = nullptr;
int lock_depth = 0;
TraceLog* trace_log = nullptr;
int32_t trace_pid = 0;

const Label* labels() {
    return __start_llm_labels;
}

uint32_t label_count() {
    return static_cast<uint32_t>(__stop_llm_labels - __start_llm_labels);
}

namespace {

void append(TraceRecord& record, TraceKind kind, int64_t now) {
    const uint64_t at = trace_log->next.load(std::memory_order_relaxed);
    if (at >= trace_log->capacity) {
        return;  // the checker sees that the log is full
    }
    record.kind = static_cast<uint32_t>(kind);
    record.pid = trace_pid;
    record.time_us = now;
    trace_log->records[at] = record;
    trace_log->next.store(at + 1, std::memory_order_release);
}

}  // namespace

void trace(const Core& c, TraceKind kind, const Request& r, double value, uint32_t flag) {
    if (trace_log == nullptr) {
        return;
    }
    TraceRecord record{};
    record.seq = r.seq;
    record.index = index_of(c, r);
    record.generation = r.generation;
    record.account = r.account;
    record.pool = r.pool;
    record.priority = r.priority;
    record.level_class = class_of(c, c.accounts[r.account], r.priority);
    record.seats = r.seats;
    record.engine = r.engine;
    record.lease = r.lease;
    if (r.engine != kNone) {
        const Engine& e = c.engines[r.engine];
        record.engine_held = e.held;
        record.max_running = e.max_running;
        record.limit = e.limit;
    }
    record.value = value;
    record.flag = flag;
    append(record, kind, c.now);
}

void trace_account(const Core& c, TraceKind kind, uint32_t account, uint32_t flag) {
    if (trace_log == nullptr) {
        return;
    }
    TraceRecord record{};
    record.account = account;
    record.engine = kNone;
    record.flag = flag;
    append(record, kind, c.now);
}

}  // namespace llm::core
#endif
