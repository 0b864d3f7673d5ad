#include "tools/llmctl/embedded_sql.hpp"

#include <cstddef>

// LLM_CONF_DIR is the path of conf/, given by the build.
#define LLM_EMBED(name, file)              \
    __asm__(                               \
        ".pushsection .rodata\n"           \
        ".global llm_embedded_" name       \
        "_begin\n"                         \
        ".global llm_embedded_" name       \
        "_end\n"                           \
        "llm_embedded_" name               \
        "_begin:\n"                        \
        ".incbin \"" LLM_CONF_DIR "/" file \
        "\"\n"                             \
        "llm_embedded_" name               \
        "_end:\n"                          \
        ".popsection\n")

LLM_EMBED("schema", "schema.sql");
LLM_EMBED("notify", "llm_notify.sql");
LLM_EMBED("usage", "llm_usage.sql");

extern "C" {
extern const char llm_embedded_schema_begin[] __attribute__((visibility("hidden")));
extern const char llm_embedded_schema_end[] __attribute__((visibility("hidden")));
extern const char llm_embedded_notify_begin[] __attribute__((visibility("hidden")));
extern const char llm_embedded_notify_end[] __attribute__((visibility("hidden")));
extern const char llm_embedded_usage_begin[] __attribute__((visibility("hidden")));
extern const char llm_embedded_usage_end[] __attribute__((visibility("hidden")));
}

namespace llm::ctl {

std::string_view schema_sql() {
    return {llm_embedded_schema_begin,
            static_cast<size_t>(llm_embedded_schema_end - llm_embedded_schema_begin)};
}

std::string_view notify_sql() {
    return {llm_embedded_notify_begin,
            static_cast<size_t>(llm_embedded_notify_end - llm_embedded_notify_begin)};
}

std::string_view usage_sql() {
    return {llm_embedded_usage_begin, static_cast<size_t>(llm_embedded_usage_end - llm_embedded_usage_begin)};
}

}  // namespace llm::ctl
