// The end of a call that scripts/lock_check.py has found inside the lock. Test builds only; not itself checked.
#include "ngx_module/core/test_hooks.hpp"

#if LLM_TEST_HOOKS
#include <unistd.h>

#include <cstdlib>
#include <cstring>

extern "C" [[noreturn]] __attribute__((visibility("hidden"))) void llm_called_inside_the_lock(const char* name);

void llm_called_inside_the_lock(const char* name) {
    llm::core::lock_depth = 0;
    static const char kText[] = "[emerg] called inside the zone's lock: ";
    // standard error is nginx's error log
    const bool written = write(STDERR_FILENO, kText, sizeof kText - 1) > 0 &&
                         write(STDERR_FILENO, name, std::strlen(name)) > 0 && write(STDERR_FILENO, "\n", 1) > 0;
    std::_Exit(written ? 70 : 71);
}
#endif
