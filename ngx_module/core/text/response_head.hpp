// The head of an engine's answer in its ordinary form (RFC 9112, sections 3 and 5), read wide.
//
// This is no second opinion about HTTP: it accepts a subset that every reader of HTTP understands alike, and
// says "not ordinary" to all else, so that nginx's own parser can look at that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace llm::core {

// A header name that was seen before: validated, lowered and hashed once.
struct HeaderName {
    static constexpr size_t kCapacity = 48;
    char text[kCapacity];   // as the engine writes it, zeros behind
    char lower[kCapacity];  // zero-terminated
    uint64_t hash;          // of `lower`, as nginx computes it: h = 31 h + c
    const void* user;       // whatever the caller keeps with it
    uint32_t length;        // 1..kCapacity - 1; 0 = empty place
};

// The names an engine uses are few and always the same. What does not fit is "not ordinary": endless new
// names cost no memory.
class HeaderNames {
  public:
    // The entry of `name`, made when it is new; nullptr when it is no ordinary name (letters, digits, '-' and
    // '_', fewer than HeaderName::kCapacity) or the table is full. `fresh` is called for a new entry, to fill
    // `user`. `readable` is how many bytes may be read from name.data().
    template <class Fresh>
    const HeaderName* intern(std::string_view name, size_t readable, Fresh fresh) {
        HeaderName* place = find(name, readable);
        if (place == nullptr) {
            return nullptr;
        }
        if (place->length == 0) {
            if (!fill(*place, name)) {
                return nullptr;
            }
            fresh(*place);
        }
        return place;
    }

  private:
    static constexpr size_t kPlaces = 128;
    static constexpr size_t kProbes = 8;

    HeaderName* find(std::string_view name, size_t readable);
    static bool fill(HeaderName& place, std::string_view name);

    HeaderName places_[kPlaces] = {};
};

struct HeadField {
    std::string_view name;
    std::string_view value;  // without the spaces around it; may be empty
};

struct ResponseHead {
    static constexpr size_t kMaxFields = 32;
    uint32_t status;               // 200..599
    std::string_view status_line;  // from the first digit of the status to the end of the reason
    size_t count;
    HeadField fields[kMaxFields];
    const char* end;  // behind the empty line
};

// True when [begin, end) starts with a whole ordinary head: HTTP/1.1, a final status, lines that end in CR
// LF, no folded lines, no control bytes, at most kMaxFields fields. Names are not looked at beyond their
// colon. Bytes up to `readable_end` may be read, and are not believed.
bool parse_response_head(const char* begin, const char* end, const char* readable_end, ResponseHead& head);

}  // namespace llm::core
