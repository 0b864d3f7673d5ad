// What only test builds have (LLM_TEST_HOOKS): a process can be made to die at any labelled store inside the lock,
// and what happens to requests is recorded for a checker. Compiled to nothing in a release.
#pragma once

#include <cstdint>

#if LLM_TEST_HOOKS
#include <atomic>

namespace llm::core {

struct Label {
    const char* file;
    int line;
};

// All labels of the program or module, in a section of their own. Number n in test directives is labels()[n].
const Label* labels();
uint32_t label_count();

// Called at every label passed; null = off. Process-local.
extern void (*test_hook)(const Label& label);

// > 0 while this process is inside a zone's lock.
extern int lock_depth;

// ---- the grant log: what happened to requests, in the order in which it happened under the lock

enum class TraceKind : uint32_t {
    queued = 1,  // stands in a flow
    unqueued,    // no longer stands in one
    leased,      // holds seats of an engine; `value` = seats foreign to the zone there
    released,
    granted,  // `flag`: to its owner's own call, else by mail
    aged,     // the grant just recorded passed a stricter class by the rule for aged requests
    started,
    returned,  // the grant was not taken up
    ended,
    held,     // the account may not dispatch at present (`flag`), or may again
    charged,  // `value` = cost / weight, negative: given back
    rebuilt,  // the lock's owner had died; every live request follows as `found`
    found,    // `flag`: its state
};

struct TraceRecord {
    uint32_t kind;
    int32_t pid;
    int64_t time_us;
    uint64_t seq;  // the request's order of arrival
    uint32_t index;
    uint32_t generation;
    uint32_t account;
    uint32_t pool;
    int32_t priority;
    int32_t level_class;
    uint32_t seats;
    uint32_t engine;
    uint32_t engine_held;  // seats of this zone on that engine, after
    uint32_t max_running;
    double limit;
    double value;
    uint32_t flag;
    uint32_t lease;
};
static_assert(sizeof(TraceRecord) == 88);

struct TraceLog {
    uint64_t magic;  // kTraceMagic
    std::atomic<uint64_t> next;
    uint64_t capacity;
    uint64_t reserved[5];
    TraceRecord records[];
};
constexpr uint64_t kTraceMagic = 0x31676f6c6d6c6cull;  // "llmlog1"

// Shared by all processes of the zone; null = off. Written under the lock only, so a process killed while it writes
// leaves a record that `next` does not count.
extern TraceLog* trace_log;
extern int32_t trace_pid;

struct Core;
struct Request;
void trace(const Core& c, TraceKind kind, const Request& r, double value = 0, uint32_t flag = 0);
void trace_account(const Core& c, TraceKind kind, uint32_t account, uint32_t flag);

}  // namespace llm::core

#define LLM_LABEL()                                                                                          \
    do {                                                                                                     \
        static const ::llm::core::Label llm_label __attribute__((section("llm_labels"), used)) = {__FILE__,  \
                                                                                                  __LINE__}; \
        if (::llm::core::test_hook != nullptr) {                                                             \
            ::llm::core::test_hook(llm_label);                                                               \
        }                                                                                                    \
    } while (0)
#define LLM_TRACE(...) ::llm::core::trace(__VA_ARGS__)
#define LLM_TRACE_ACCOUNT(...) ::llm::core::trace_account(__VA_ARGS__)
#else
#define LLM_LABEL() static_cast<void>(0)
#define LLM_TRACE(...) static_cast<void>(0)
#define LLM_TRACE_ACCOUNT(...) static_cast<void>(0)
#endif
