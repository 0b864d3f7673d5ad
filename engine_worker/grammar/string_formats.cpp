#include "engine_worker/grammar/string_formats.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace llm::engine {
namespace {

#define LLM_DATE                                                          \
    "(?:[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|"  \
    "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|" \
    "(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)-02-29)"
#define LLM_CLOCK "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?"
#define LLM_ZONE "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
#define LLM_BYTE "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define LLM_IPV4 "(?:" LLM_BYTE "\\.){3}" LLM_BYTE
#define LLM_H16 "[0-9a-fA-F]{1,4}"
#define LLM_LABEL(inner) "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0," inner "}[a-zA-Z0-9])?"
#define LLM_HOSTNAME(labels, inner) LLM_LABEL(inner) "(?:\\." LLM_LABEL(inner) ")" labels
#define LLM_ATOM(most) "[a-zA-Z0-9_+-]{1," most "}"
#define LLM_COUNT "[0-9]{1,6}"
#define LLM_HOURS                                                                                          \
    "(?:" LLM_COUNT "H(?:" LLM_COUNT "M(?:" LLM_COUNT "S)?)?|" LLM_COUNT "M(?:" LLM_COUNT "S)?|" LLM_COUNT \
    "S)"
#define LLM_YEARS                                                                                          \
    "(?:" LLM_COUNT "Y(?:" LLM_COUNT "M(?:" LLM_COUNT "D)?)?|" LLM_COUNT "M(?:" LLM_COUNT "D)?|" LLM_COUNT \
    "D)"
#define LLM_URI_CHAR "(?:[a-zA-Z0-9._~!$&'()*+,;=:@/?-]|%[0-9a-fA-F]{2})"

// RFC 3339, RFC 4122, RFC 5321 (dot-atom form), RFC 1123, RFC 4291, RFC 3986.
constexpr std::array<std::pair<std::string_view, std::string_view>, 10> kFormats = {{
    {"date", "^" LLM_DATE "$"},
    {"time", "^" LLM_CLOCK LLM_ZONE "$"},
    {"date-time", "^" LLM_DATE "T" LLM_CLOCK LLM_ZONE "$"},
    {"duration", "^P(?:" LLM_YEARS "(?:T" LLM_HOURS ")?|T" LLM_HOURS "|" LLM_COUNT "W)$"},
    {"email", "^(?:" LLM_ATOM("64") "|" LLM_ATOM("31") "\\." LLM_ATOM("31") "|" LLM_ATOM(
                  "15") "(?:\\." LLM_ATOM("15") "){2,3})@(?:" LLM_LABEL("30") "\\.){1,4}[a-zA-Z]{2,18}$"},
    // At most 253 characters.
    {"hostname", "^(?:" LLM_HOSTNAME("{0,2}", "61") "|" LLM_HOSTNAME("{3,7}", "28") ")$"},
    {"ipv4", "^" LLM_IPV4 "$"},
    {"ipv6", "^(?:(?:" LLM_H16 ":){7}" LLM_H16 "|(?:" LLM_H16 ":){1,7}:|(?:" LLM_H16 ":){1,6}:" LLM_H16
             "|(?:" LLM_H16 ":){1,5}(?::" LLM_H16 "){1,2}|(?:" LLM_H16 ":){1,4}(?::" LLM_H16
             "){1,3}|(?:" LLM_H16 ":){1,3}(?::" LLM_H16 "){1,4}|(?:" LLM_H16 ":){1,2}(?::" LLM_H16
             "){1,5}|" LLM_H16 ":(?::" LLM_H16 "){1,6}|:(?:(?::" LLM_H16 "){1,7}|:)|(?:(?:" LLM_H16
             ":){6}|::(?:" LLM_H16 ":){0,5}|(?:" LLM_H16 ":){1,5}:)" LLM_IPV4 ")$"},
    {"uuid", "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"},
    {"uri", "^[a-zA-Z][a-zA-Z0-9+.-]{0,20}:" LLM_URI_CHAR "+(?:#" LLM_URI_CHAR "*)?$"},
}};

// Formats of JSON Schema (drafts 4 to 2020-12) that are not enforced.
constexpr std::array<std::string_view, 9> kOthers = {"idn-email",     "idn-hostname",          "iri",
                                                     "iri-reference", "uri-reference",         "uri-template",
                                                     "json-pointer",  "relative-json-pointer", "regex"};

constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kCovering = {{
    {"email",
     R"(^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$)"},
    {"duration",
     R"(^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$)"},
    {"hostname",
     R"(^(?=.{1,253}\.?$)[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[-0-9a-zA-Z]{0,61}[0-9a-zA-Z])?)*\.?$)"},
}};

}  // namespace

bool format_is_remark(std::string_view format) {
    return format_pattern(format).empty() &&
           std::find(kOthers.begin(), kOthers.end(), format) == kOthers.end();
}

bool pattern_covers_format(std::string_view pattern, std::string_view format) {
    return std::find(kCovering.begin(), kCovering.end(), std::pair(format, pattern)) != kCovering.end();
}

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
