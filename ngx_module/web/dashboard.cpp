#include "ngx_module/web/dashboard.hpp"

// LLM_DASHBOARD_HTML is the path of the page, given by the build.
__asm__(
    ".section .rodata\n"
    ".global llm_dashboard_begin\n"
    ".hidden llm_dashboard_begin\n"
    ".global llm_dashboard_end\n"
    ".hidden llm_dashboard_end\n"
    "llm_dashboard_begin:\n"
    ".incbin \"" LLM_DASHBOARD_HTML
    "\"\n"
    "llm_dashboard_end:\n"
    ".previous\n");

extern "C" {
extern const char llm_dashboard_begin[] __attribute__((visibility("hidden")));
extern const char llm_dashboard_end[] __attribute__((visibility("hidden")));
}

namespace llm::nginx::web {

std::string_view dashboard_page() {
    return {llm_dashboard_begin, static_cast<size_t>(llm_dashboard_end - llm_dashboard_begin)};
}

}  // namespace llm::nginx::web
