// What tests of UsageScan share: events collected from a stream in pieces, and two scans compared.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "ngx_module/core/text/sse_scan.hpp"

namespace llm::core {

// An event as it was found: its bytes, blank line included, and what it was.
struct Event {
    std::string bytes;
    StreamEvent kind;
    bool operator==(const Event& other) const { return bytes == other.bytes && kind == other.kind; }
};

inline std::ostream& operator<<(std::ostream& out, const Event& event) {
    return out << '[' << event.bytes << "] kind " << static_cast<int>(event.kind);
}

// Feeds pieces of the given size (0 = everything), each in an allocation of its own, and collects the events.
inline std::vector<Event> collect(UsageScan& scan, std::string_view bytes,
                                  const std::function<size_t()>& piece_size) {
    std::vector<Event> events;
    std::string open;
    while (!bytes.empty()) {
        const size_t size = std::min(bytes.size(), piece_size());
        const std::unique_ptr<char[]> copy(new char[size]);
        bytes.copy(copy.get(), size);
        bytes.remove_prefix(size);
        std::string_view rest(copy.get(), size);
        while (!rest.empty()) {
            const UsageScan::Piece piece = scan.next(rest);
            EXPECT_GT(piece.size, 0u);
            open += rest.substr(0, piece.size);
            rest.remove_prefix(piece.size);
            if (piece.ends_event) {
                if (open == "\n" && !events.empty() && events.back().bytes.back() == '\r') {
                    EXPECT_EQ(piece.kind, events.back().kind);
                    events.back().bytes += open;  // the second half of a CRLF
                } else {
                    events.push_back({open, piece.kind});
                }
                open.clear();
            }
        }
    }
    return events;
}

inline std::vector<Event> collect_whole(UsageScan& scan, std::string_view bytes) {
    return collect(scan, bytes, [&] { return bytes.size(); });
}

// All that a scan says of its stream.
inline void expect_same(const UsageScan& a, const UsageScan& b, std::string_view text) {
    EXPECT_EQ(a.content_events(), b.content_events()) << text;
    EXPECT_EQ(a.content_seen(), b.content_seen()) << text;
    EXPECT_EQ(a.done(), b.done()) << text;
    EXPECT_EQ(a.error_seen(), b.error_seen()) << text;
    EXPECT_EQ(a.at_event_boundary(), b.at_event_boundary()) << text;
    EXPECT_EQ(a.mid_line(), b.mid_line()) << text;
    EXPECT_EQ(a.may_become_usage_only(), b.may_become_usage_only()) << text;
    EXPECT_EQ(a.json_complete(), b.json_complete()) << text;
    ASSERT_EQ(a.usage().has_value(), b.usage().has_value()) << text;
    if (a.usage()) {
        EXPECT_EQ(a.usage()->prompt_tokens, b.usage()->prompt_tokens) << text;
        EXPECT_EQ(a.usage()->completion_tokens, b.usage()->completion_tokens) << text;
        EXPECT_EQ(a.usage()->cached_tokens, b.usage()->cached_tokens) << text;
    }
}

}  // namespace llm::core
