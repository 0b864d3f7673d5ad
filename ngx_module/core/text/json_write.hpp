// Appends JSON to a buffer of the caller: enough for error bodies and events, never allocates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace llm::core {

// Writes up to `capacity` bytes. What does not fit as a whole is left out, and ok() is false from then on: a
// caller that sized its buffer with escaped_size() never sees that.
class JsonWriter {
  public:
    JsonWriter(char* buffer, size_t capacity) : buffer_(buffer), capacity_(capacity) {}

    // Bytes as they are: punctuation and fixed text.
    JsonWriter& raw(std::string_view text);
    // A JSON string with its quotes. Quotes, backslashes and control characters are escaped; each maximal
    // part of an invalid UTF-8 sequence becomes U+FFFD (Unicode 15, section 3.9, as browsers do), so the
    // result is valid JSON whatever the input.
    JsonWriter& string(std::string_view text);
    // A decimal integer.
    JsonWriter& number(int64_t value);

    bool ok() const { return ok_; }
    size_t size() const { return size_; }
    std::string_view text() const { return {buffer_, size_}; }

    // Bytes that string(text) writes, quotes included; at most 6 * text.size() + 2.
    static size_t escaped_size(std::string_view text);

  private:
    char* buffer_;
    size_t capacity_;
    size_t size_ = 0;
    bool ok_ = true;
};

}  // namespace llm::core
