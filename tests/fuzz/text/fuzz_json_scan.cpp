// JsonScan against nlohmann-json, and against itself in other pieces. The first byte chooses the pieces.
#include "ngx_module/core/text/json_scan.hpp"
#include "tests/fuzz/text/fuzz_input.hpp"
#include "tests/unit/text/json_reference.hpp"

namespace {

bool same(llm::core::Span a, llm::core::Span b) {
    return a.begin == b.begin && a.end == b.end;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace llm::core;
    if (size == 0) {
        return 0;
    }
    const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
    JsonScan whole;
    whole.feed(body);
    whole.finish();
    JsonScan pieces;
    for_pieces(body, data[0], [&](std::string_view piece) { pieces.feed(piece); });
    pieces.finish();

    require(whole.error_kind() == pieces.error_kind(), "the verdict depends on the pieces");
    require(whole.error_key() == pieces.error_key(), "the key at fault depends on the pieces");
    require(whole.failed() == (whole.error()[0] != '\0'), "an error without text");
    const std::string differs = compare(whole, reference_scan(body));
    require(differs.empty(), differs.c_str());
    if (whole.failed()) {
        return 0;
    }
    const ControlKeys& a = whole.keys();
    const ControlKeys& b = pieces.keys();
    require(compare(pieces, reference_scan(body)).empty(), "the values depend on the pieces");
    require(same(a.model_span, b.model_span) && same(a.priority_span, b.priority_span),
            "spans depend on the pieces");
    require(same(a.stream_options_span, b.stream_options_span), "spans depend on the pieces");
    require(same(a.include_usage_span, b.include_usage_span), "spans depend on the pieces");
    require(a.object_end == b.object_end && a.object_empty == b.object_empty,
            "the end depends on the pieces");
    require(a.stream_options_empty == b.stream_options_empty, "stream_options depends on the pieces");
    // The spans hold what they promise.
    require(body[a.object_end] == '}', "the end is no brace");
    if (a.has_model) {
        const std::string_view raw = body.substr(a.model_span.begin, a.model_span.end - a.model_span.begin);
        const auto value = nlohmann::json::parse(raw, nullptr, false);
        require(value.is_string() && value.get<std::string>() == a.model(), "the model's span");
    }
    if (!a.stream_options_span.empty()) {
        const std::string_view raw =
            body.substr(a.stream_options_span.begin, a.stream_options_span.end - a.stream_options_span.begin);
        require(raw == "null" || (raw.front() == '{' && raw.back() == '}'), "the span of stream_options");
    }
    return 0;
}
