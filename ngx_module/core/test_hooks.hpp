// Fault injection for tests: a process can be made to die at any labelled store inside the lock. Compiled to
// nothing in a release.
#pragma once

#if LLM_TEST_HOOKS
namespace llm::core {
// Called with the label's line at every LLM_LABEL; null = off. Process-local.
extern void (*test_hook)(const char* file, int line);
}  // namespace llm::core
#define LLM_LABEL()                                     \
    do {                                                \
        if (::llm::core::test_hook != nullptr) {        \
            ::llm::core::test_hook(__FILE__, __LINE__); \
        }                                               \
    } while (0)
#else
#define LLM_LABEL() static_cast<void>(0)
#endif
