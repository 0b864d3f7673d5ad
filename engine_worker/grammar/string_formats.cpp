#include "engine_worker/grammar/string_formats.hpp"

#include <array>
#include <utility>

namespace llm::engine {
namespace {

#define LLM_DATE                                                                                            \
    "[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|" \
    "02-(?:0[1-"                                                                                            \
    "9]|1[0-9]|2[0-8]))"
#define LLM_CLOCK "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?"
#define LLM_ZONE "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
#define LLM_BYTE "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define LLM_IPV4 "(?:" LLM_BYTE "\\.){3}" LLM_BYTE
#define LLM_H16 "[0-9a-fA-F]{1,4}"
#define LLM_LABEL "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
#define LLM_URI_CHAR "(?:[a-zA-Z0-9._~!$&'()*+,;=:@/?-]|%[0-9a-fA-F]{2})"

// RFC 3339, RFC 4122, RFC 5321 (dot-atom form), RFC 1123, RFC 4291, RFC 3986.
constexpr std::array<std::pair<std::string_view, std::string_view>, 10> kFormats = {{
    {"date", "^" LLM_DATE "$"},
    {"time", "^" LLM_CLOCK LLM_ZONE "$"},
    {"date-time", "^" LLM_DATE "T" LLM_CLOCK LLM_ZONE "$"},
    {"duration",
     "^P(?:[0-9]{1,6}W|(?:[0-9]{1,6}Y)?(?:[0-9]{1,6}M)?[0-9]{1,6}D|(?:[0-9]{1,6}D)?T(?:[0-9]{1,6}H)?(?:[0-9]{"
     "1,6}"
     "M)?[0-9]{1,6}S)$"},
    {"email",
     "^[a-zA-Z0-9_+-]{1,32}(?:\\.[a-zA-Z0-9_+-]{1,30})?@(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?\\.){"
     "1,4}"
     "[a-zA-Z]{2,10}$"},
    {"hostname", "^" LLM_LABEL "(?:\\." LLM_LABEL "){0,2}$"},
    {"ipv4", "^" LLM_IPV4 "$"},
    {"ipv6", "^(?:(?:" LLM_H16 ":){7}" LLM_H16 "|(?:" LLM_H16 ":){1,6}:" LLM_H16 "|::(?:" LLM_H16
             ":){0,5}" LLM_H16 "|::|(?:" LLM_H16 ":){1,7}:)$"},
    {"uuid", "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"},
    {"uri", "^[a-zA-Z][a-zA-Z0-9+.-]{0,20}:" LLM_URI_CHAR "+(?:#" LLM_URI_CHAR "*)?$"},
}};

}  // namespace

std::string_view format_pattern(std::string_view format) {
    for (const auto& [name, pattern] : kFormats) {
        if (name == format) {
            return pattern;
        }
    }
    return {};
}

std::string known_formats() {
    std::string out;
    for (const auto& [name, pattern] : kFormats) {
        out += out.empty() ? "" : ", ";
        out += name;
    }
    return out;
}

}  // namespace llm::engine
