// What the gateway reads from a request body, whatever its form (JSON or multipart), and why a body is
// refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace llm::core {

// A range of byte offsets in the body as the client sent it. A span that was never set is 0..0.
struct Span {
    uint64_t begin = 0;
    uint64_t end = 0;  // one past the last byte
    bool empty() const { return begin == end; }
};

// Every kind but none, empty and value_too_long is answered by 400 `invalid_json`.
enum class ErrorKind : uint8_t {
    none,
    empty,           // zero bytes: `model_required`
    not_object,      // JSON, but the top level is no object
    syntax,          // not JSON (or not multipart); NUL, byte order mark and trailing bytes too
    truncated,       // the body ended inside the document
    invalid_utf8,    // overlong, surrogate, above U+10FFFF, or a lone \uD800..\uDFFF escape
    depth,           // nested deeper than kMaxDepth
    duplicate,       // a control key occurs twice (error_key names it)
    wrong_type,      // a control key has a value of the wrong type (error_key names it)
    wrong_value,     // right type, impossible value: a negative n (error_key names it)
    value_too_long,  // the body is valid, but `model` or `routing-mode` is longer than is kept (error_key
                     // names it): no registered model has such a name. Known only after finish().
    too_large,       // multipart: header block, boundary or number of parts over the limit
};

// The keys of a request body that the gateway reads. `null` = absent (the optional is empty), but the span is set
// wherever the key stands, so that a value can be replaced. Strings are decoded.
struct ControlKeys {
    static constexpr size_t kMaxModel = 255;
    static constexpr size_t kMaxRoutingMode = 63;
    static constexpr uint32_t kMaxCount = 0x7fffffff;  // larger counts are clamped to this

    std::optional<bool> stream;
    std::optional<int32_t> priority;
    // Limits below 0 are none, as `null` is.
    std::optional<uint32_t> max_tokens;
    std::optional<uint32_t> max_completion_tokens;
    std::optional<uint32_t> max_output_tokens;
    std::optional<uint32_t> n;
    std::optional<bool> include_usage;  // of stream_options

    Span model_span;           // raw value with its quotes (multipart: the bare value); may be `null`
    Span priority_span;        // raw value; may be `null`
    Span stream_options_span;  // raw value, braces included; may be `null`
    Span include_usage_span;   // raw value within stream_options; may be `null`
    uint64_t object_end =
        0;  // JSON: offset of the closing brace of the top level, where a member can be added
    bool object_empty = true;          // JSON: the top level has no member (so a new one needs no comma)
    bool stream_options_empty = true;  // the object stream_options has no member

    bool has_model = false;  // a string (not null, not missing); it may be empty
    bool has_routing_mode = false;
    uint8_t model_size = 0;
    uint8_t routing_mode_size = 0;
    char model_bytes[kMaxModel];
    char routing_mode_bytes[kMaxRoutingMode];

    // Estimates, for charging before the engine has counted.
    uint64_t text_bytes = 0;  // decoded bytes of string values; those that start with `data:` count nothing
    uint64_t prompt_tokens_given = 0;  // integers in the arrays `prompt`, `input` and `token_ids`
    uint32_t prompt_count = 1;  // elements of `prompt` if it is an array of strings or arrays; at least 1

    std::string_view model() const { return {model_bytes, model_size}; }
    std::string_view routing_mode() const { return {routing_mode_bytes, routing_mode_size}; }

    // The output limit the engine will apply to one completion; the largest if a client sets several.
    std::optional<uint32_t> output_limit() const {
        std::optional<uint32_t> limit;
        for (const auto& value : {max_tokens, max_completion_tokens, max_output_tokens}) {
            if (value && (!limit || *value > *limit)) {
                limit = value;
            }
        }
        return limit;
    }
};

}  // namespace llm::core
