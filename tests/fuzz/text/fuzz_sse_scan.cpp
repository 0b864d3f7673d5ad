// UsageScan gives the same answer for all pieces, and its pieces add up. The first byte chooses framing and
// pieces.
#include <vector>

#include "ngx_module/core/text/sse_scan.hpp"
#include "tests/fuzz/text/fuzz_input.hpp"

namespace {

using namespace llm::core;

struct Event {
    size_t size;
    StreamEvent kind;
    bool operator==(const Event& other) const { return size == other.size && kind == other.kind; }
};

// Events of a text, with the lone LF that completes a CRLF added to the event before it.
class Collector {
  public:
    explicit Collector(UsageScan& scan) : scan_(scan) {}

    void take(std::string_view bytes) {
        while (!bytes.empty()) {
            const UsageScan::Piece piece = scan_.next(bytes);
            require(piece.size > 0 && piece.size <= bytes.size(), "a piece of impossible size");
            const std::string_view part = bytes.substr(0, piece.size);
            bytes.remove_prefix(piece.size);
            if (piece.ends_event && open_ == 0 && part == "\n" && last_ == '\r' && !events_.empty()) {
                require(piece.kind == events_.back().kind, "the kind of a lone LF");
                ++events_.back().size;
            } else {
                open_ += piece.size;
                if (piece.ends_event) {
                    events_.push_back({open_, piece.kind});
                    open_ = 0;
                }
            }
            last_ = part.back();
        }
    }

    const std::vector<Event>& events() const { return events_; }
    size_t open() const { return open_; }

  private:
    UsageScan& scan_;
    std::vector<Event> events_;
    size_t open_ = 0;
    char last_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) {
        return 0;
    }
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    const auto framing = data[0] & 1 ? UsageScan::Framing::json : UsageScan::Framing::sse;
    UsageScan whole(framing);
    Collector whole_events(whole);
    whole_events.take(text);
    UsageScan pieces(framing);
    Collector piece_events(pieces);
    for_pieces(text, data[0] >> 1, [&](std::string_view piece) { piece_events.take(piece); });
    UsageScan fed(framing);
    fed.feed(text);

    require(whole_events.events() == piece_events.events(), "events depend on the pieces");
    require(whole_events.open() == piece_events.open(), "the open event depends on the pieces");
    size_t contents = 0;
    for (const Event& event : whole_events.events()) {
        contents += event.kind == StreamEvent::content;
    }
    require(contents == whole.content_events(), "content events are miscounted");
    require(framing == UsageScan::Framing::json || whole.at_event_boundary() == (whole_events.open() == 0) ||
                text.substr(0, 3) == "\xef\xbb\xbf",
            "the event boundary");
    for (const UsageScan* scan : {&pieces, &fed}) {
        require(scan->content_events() == whole.content_events(), "content_events");
        require(scan->content_seen() == whole.content_seen(), "content_seen");
        require(scan->done() == whole.done() && scan->error_seen() == whole.error_seen(), "done or error");
        require(scan->at_event_boundary() == whole.at_event_boundary(), "at_event_boundary");
        require(scan->mid_line() == whole.mid_line(), "mid_line");
        require(scan->may_become_usage_only() == whole.may_become_usage_only(), "may_become_usage_only");
        require(scan->json_complete() == whole.json_complete(), "json_complete");
        require(scan->usage().has_value() == whole.usage().has_value(), "usage");
        if (whole.usage()) {
            require(scan->usage()->prompt_tokens == whole.usage()->prompt_tokens, "prompt_tokens");
            require(scan->usage()->completion_tokens == whole.usage()->completion_tokens,
                    "completion_tokens");
            require(scan->usage()->cached_tokens == whole.usage()->cached_tokens, "cached_tokens");
        }
    }
    return 0;
}
