// Incremental scanner for the top-level control keys of an OpenAI request body.
//
// The body arrives in pieces of any size (nginx buffers, 64 KB reads of a spilled file, single bytes) and is
// never copied or made contiguous. The whole document is checked against RFC 8259, because a gateway that
// reads less strictly than the engine can be made to disagree with it on the model. Stricter than the RFC in
// these points:
//   - the top level must be an object; no byte order mark;
//   - a control key may occur once, compared after decoding of escapes, even if one occurrence is null;
//   - a control key must have its type; counts are non-negative integers without fraction and exponent;
//   - escapes of lone surrogates are refused (engines differ in what they make of them);
//   - nesting is limited to kMaxDepth.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ngx_module/core/text/control_keys.hpp"

namespace llm::core {

// Plain state, no heap, trivially copyable, about 700 bytes. O(bytes); string bodies are skipped with vector
// code.
class JsonScan {
  public:
    static constexpr uint32_t kMaxDepth = 128;

    // Next piece of the body. After a failure further pieces are ignored.
    void feed(std::string_view chunk);

    // End of body. True = one complete, valid object with acceptable control keys; call once.
    bool finish();

    bool failed() const { return error_kind_ != ErrorKind::none; }
    ErrorKind error_kind() const { return error_kind_; }
    const char* error() const { return error_; }  // static text for people; "" without an error
    std::string_view error_key() const;           // control key at fault, static text; else empty
    uint64_t error_offset() const {
        return error_offset_;
    }  // near which byte of the body (exact to one string run)

    // Complete after finish() returned true; until then what has been seen so far.
    const ControlKeys& keys() const { return keys_; }

  private:
    // Up to `done` between tokens, then inside one.
    enum class State : uint8_t {
        start,
        value,
        array_first,
        object_first,
        key,
        colon,
        after,
        done,
        text,  // as string, but long, and no more of it matters than its size
        string,
        escape,
        hex,
        low_backslash,
        low_u,
        number,
        literal,
        failed
    };
    enum class Number : uint8_t {
        minus,
        zero,
        digits,
        dot,
        fraction,
        exponent,
        exponent_sign,
        exponent_digits
    };
    // Order of kKeyNames in json_scan_tokens.cpp. Up to include_usage a key may occur only once.
    enum class Key : uint8_t {
        none,
        model,
        stream,
        priority,
        max_tokens,
        max_completion_tokens,
        max_output_tokens,
        n,
        routing_mode,
        stream_options,
        include_usage,
        prompt,
        input,
        token_ids
    };

    // What the innermost open container is. Those whose integers are tokens come first, objects behind
    // arrays, and those whose keys mean something last.
    enum class Place : uint8_t {
        inputs,   // the array `input` or `token_ids`
        prompts,  // the array `prompt`, whose elements are counted
        tokens,   // an array in one of these
        array,
        object,
        options,  // stream_options
        top,
    };

    static constexpr size_t kAhead = 80;  // what whole_tokens() may read behind the beginning of a token

    // Each takes bytes from [p, end) and returns where to go on.
    const char* scan(const char* p, const char* end, const char* limit);
    const char* careful_scan(const char* p, const char* end, const char* limit);
    void scan_short(const char* p, const char* end);
    void scan_end(const char* p, const char* end, size_t copied);
    const char* whole_tokens(const char* p, const char* end, const char* limit);
    const char* whole_number(const char* p, const char* limit);
    const char* token_numbers(const char* p, const char* limit);
    bool count(const char* p, const char* end);
    const char* long_text(const char* p, const char* stop, const char* end);
    void keep_model(const char* p, size_t size);
    void control_text(const char* p, size_t size);
    const char* between_tokens(const char* p, const char* end);
    const char* inside_token(const char* p, const char* end);
    const char* string_bytes(const char* p, const char* end);
    const char* text_bytes(const char* p, const char* end);
    const char* escaped_text(const char* p, const char* end);
    const char* cut_character(const char* p, const char* end);
    const char* utf8_continuation(const char* p, const char* end);
    const char* literal_bytes(const char* p, const char* end);
    const char* number_bytes(const char* p, const char* end);
    const char* begin_value(const char* p);
    void begin_document(const char* p);
    // After the value of a member or an element.
    void end_value() {
        key_ = Key::none;
        state_ = State::after;
    }
    void begin_container(const char* p, bool object);
    void enter(Place place, State first);
    void leave();
    void end_container(const char* p, bool object);
    void count_prompt();
    void end_literal(const char* p);
    void end_number(const char* p);
    void set_count(std::optional<uint32_t>& field, const char* p);
    void begin_key();
    void name_key(const char* p, const char* name, size_t size);
    Key named_key(const char* name, size_t size) const;
    bool set_key(const char* p, Key key);
    static Key top_key(const char* name, size_t size);
    static const char* usual_top_key(const char* p, Key& key);
    void begin_text(const char* p);
    void end_key(const char* p);
    void end_string(const char* p);
    void escape_byte(const char* p);
    void hex_digit(const char* p);
    void append(const char* p, size_t size);
    void append_byte(char byte);
    void append_code_point(uint32_t code_point);
    void match_data_uri(const char* p, size_t size);
    void capture(const char* p, size_t size);
    Span* span_of(Key key);
    void wrong_type(const char* p) { fail(ErrorKind::wrong_type, "wrong type of a control key", p, key_); }
    uint64_t offset(const char* p) const { return reinterpret_cast<uintptr_t>(p) + shift_; }
    void fail(ErrorKind kind, const char* text, const char* p, Key key = Key::none);

    // Position.
    uint64_t size_ = 0;  // of the body so far, with the whole piece being scanned
    // Grammar.
    State state_ = State::start;
    Number number_ = Number::minus;
    uint32_t depth_ = 0;
    uint64_t shift_ = 0;  // from the address of a byte of that piece to its offset in the body, modulo 2^64
    Place place_ = Place::top;  // the innermost open container
    Place outer_[kMaxDepth];    // those around it, outermost first; depth_ - 1 of them
    // The string, number or literal that is open.
    bool string_is_key_ = false;
    bool count_text_ = false;  // this string's bytes go to text_bytes
    bool capturing_ = false;   // this string's decoded bytes are kept (key, model or routing mode)
    bool overflow_ = false;    // ... and did not fit
    uint8_t data_match_ = 0;   // bytes of "data:" matched so far; kNoData when it cannot match any more
    uint8_t need_ = 0;         // UTF-8 continuation bytes still to come
    uint8_t low_ = 0x80;       // range of the next continuation byte
    uint8_t high_ = 0xbf;
    uint8_t hex_left_ = 0;
    uint16_t unit_ = 0;            // \uXXXX being read
    uint16_t high_surrogate_ = 0;  // the first half of a pair, 0 = none
    bool negative_ = false;
    bool integer_ = true;
    uint64_t magnitude_ = 0;         // saturates at 2^32, enough to tell what is out of range
    const char* literal_ = nullptr;  // rest of `true`, `false` or `null` to match
    uint8_t literal_kind_ = 0;       // its first letter
    // Control keys.
    Key key_ = Key::none;           // the key whose value is being read, at depth 1 (or in stream_options)
    bool prompts_counted_ = false;  // the array `prompt` has an element
    Key too_long_ = Key::none;
    uint8_t key_size_ = 0;
    char key_bytes_[24];
    uint32_t seen_ = 0;  // bit per Key
    ControlKeys keys_;
    // Failure.
    ErrorKind error_kind_ = ErrorKind::none;
    Key error_key_ = Key::none;
    const char* error_ = "";
    uint64_t error_offset_ = 0;
};

static_assert(sizeof(JsonScan) < 2048);

}  // namespace llm::core
