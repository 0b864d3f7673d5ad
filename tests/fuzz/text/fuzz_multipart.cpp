// MultipartScan gives the same answer for all pieces, also in what it finds. The first line is the
// Content-Type; its first byte chooses the pieces.
#include "ngx_module/core/text/multipart.hpp"
#include "tests/fuzz/text/fuzz_input.hpp"

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
    std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
    const size_t newline = body.find('\n');
    const std::string_view type = body.substr(0, newline);
    body.remove_prefix(newline == std::string_view::npos ? body.size() : newline + 1);

    MultipartScan whole;
    const bool begun = whole.begin(type);
    require(begun != whole.failed(), "begin() and failed()");
    require(!begun || MultipartScan::is_multipart(type), "begin() and is_multipart()");
    MultipartScan pieces = whole;
    whole.feed(body);
    whole.finish();
    for_pieces(body, data[0], [&](std::string_view piece) { pieces.feed(piece); });
    pieces.finish();

    require(whole.error_kind() == pieces.error_kind(), "the verdict depends on the pieces");
    require(whole.error_key() == pieces.error_key(), "the key at fault depends on the pieces");
    if (whole.failed()) {
        return 0;
    }
    const ControlKeys& a = whole.keys();
    const ControlKeys& b = pieces.keys();
    require(a.model() == b.model() && a.has_model == b.has_model, "the model depends on the pieces");
    require(a.routing_mode() == b.routing_mode(), "the routing mode depends on the pieces");
    require(a.stream == b.stream && a.priority == b.priority && a.n == b.n, "a value depends on the pieces");
    require(a.text_bytes == b.text_bytes, "text_bytes depends on the pieces");
    require(same(a.model_span, b.model_span) && same(a.priority_span, b.priority_span),
            "spans depend on the pieces");
    if (a.has_model) {
        require(body.substr(a.model_span.begin, a.model_span.end - a.model_span.begin) == a.model(),
                "the model's span");
    }
    return 0;
}
