// Events of one stream differ in their text and in nothing else: an event that has been read completely tells
// what the next one is, as long as its other bytes are the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace llm::core {

// The bytes of one event around its first text. Constant size, no heap, trivially copyable. A comparison
// takes about 1 ns per 30 bytes, a thirtieth of reading the event.
class EventPattern {
  public:
    static constexpr size_t kCapacity = 448;  // longer events (without their text) are not learned

    // Takes over the bytes of `event`, which holds whole lines and ends with LF, and whose text, the inside
    // of a JSON string, begins at `text`. Learns nothing if the event is too long, or if its text is not
    // followed as the value of a member is.
    void learn(std::string_view event, size_t text);

    // The size of the event at the front of `bytes` that differs from the learned one by its text only, which
    // is not empty. 0 if there is none, or if it is not there as a whole.
    size_t match(std::string_view bytes) const;

    void forget() { before_ = 0; }

  private:
    uint16_t before_ = 0;  // bytes before the text; 0 = nothing learned
    uint16_t behind_ = 0;  // ... and behind it, from its closing quote
    char bytes_[kCapacity];
};

}  // namespace llm::core
