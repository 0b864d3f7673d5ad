// Reads an engine's answer as it passes: usage, first token, end of stream, event boundaries. Nothing is
// copied and nothing is held back; a body filter calls feed() (or next(), if it drops events) for each
// buffer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "ngx_module/core/text/event_pattern.hpp"

namespace llm::core {

// The engine's own count, from a `usage` object. Names of the Responses and Messages APIs (input_tokens, output_tokens)
// are the same fields.
struct ReportedUsage {
    uint64_t prompt_tokens = 0;  // all of them, also those that the Messages API counts beside its input_tokens
    uint64_t completion_tokens = 0;
    uint64_t cached_tokens = 0;  // of the prompt tokens; prompt_tokens_details.cached_tokens
};

// What a finished event of an event stream was. If several apply, the first in this order.
enum class StreamEvent : uint8_t {
    done,        // data: [DONE]
    error,       // data has a top-level `error` (object or string)
    content,     // carries at least one token: text, reasoning or tool-call arguments, not empty; of the Responses
                 // API the pieces, not what repeats them
    usage_only,  // `choices` is [] and there is a usage object: the extra chunk of
                 // stream_options.include_usage
    other,       // role chunk, finish chunk, comment, named event
};

// Constant size, no heap, trivially copyable. Correct for any chunking. About 1 ns per 3 bytes; an event that
// differs from the one before it by its text only is compared instead, ten times as fast.
// JSON is read with a tolerant tokenizer (strings, braces, colons): the engine's answer is passed on whatever
// it is, so there is nothing to refuse. Keys with escapes are not recognised: no engine writes them.
class UsageScan {
  public:
    enum class Framing : uint8_t {
        sse,   // text/event-stream; LF, CRLF and CR line ends (WHATWG HTML, section 9.2.5)
        json,  // one JSON document
    };

    // A run of bytes that next() has looked at.
    struct Piece {
        size_t size = 0;                        // bytes taken from the front of the argument
        bool ends_event = false;                // they end an event (its blank line included)
        StreamEvent kind = StreamEvent::other;  // valid with ends_event
    };

    UsageScan() { reset(Framing::sse); }
    explicit UsageScan(Framing framing) { reset(framing); }

    // Forgets everything; call at the response head.
    void reset(Framing framing);

    // Next bytes of the answer, any number.
    void feed(std::string_view bytes);

    // As feed(), but stops after the end of the first event, so that the caller can drop that event as a
    // whole:
    //   while (!bytes.empty()) { auto piece = scan.next(bytes); …; bytes.remove_prefix(piece.size); }
    // An event may begin in earlier calls; its bytes are all pieces since the last ends_event. The LF of a
    // blank line's CRLF that was cut by a buffer border is a piece of its own: one byte, ends_event, and the
    // kind of that event.
    Piece next(std::string_view bytes);

    // False as soon as the unfinished event cannot become usage_only any more; a filter that drops such
    // events needs to hold back an unfinished event only while this is true.
    bool may_become_usage_only() const;

    // Events of kind content so far: the estimate of completion tokens where usage is absent. 0 for
    // Framing::json.
    uint64_t content_events() const { return content_events_; }

    // The first token has been seen (the unfinished event counts): its arrival is the time to first token.
    bool content_seen() const { return content_seen_; }

    // The last complete usage object; null ones are skipped, a count it lacks keeps the value of the one
    // before. For json, only that of the top level.
    std::optional<ReportedUsage> usage() const;

    // data: [DONE], or the event of the Responses API that carries the usage, its last.
    bool done() const { return done_; }
    bool error_seen() const { return error_seen_; }  // an `error` event (sse), or a top-level `error` (json)

    // sse: the last byte ended an event, or there was none yet: an event of our own may follow.
    bool at_event_boundary() const { return line_ == Line::start && event_empty_; }
    // sse: the last byte did not end a line.
    bool mid_line() const { return line_ != Line::start; }
    // json: the document is complete (its brackets are balanced).
    bool json_complete() const { return json_complete_; }

  private:
    enum class Line : uint8_t { start, bom, field, after_colon, payload_start, payload, skip };
    enum class Token : uint8_t { outside, string, escape, after_string, value, text_byte, choice, number };
    enum class Key : uint8_t {
        none,
        text,
        delta,
        usage,
        choices,
        response,
        sequence,
        error,
        prompt_tokens,  // from here on, counts
        input_tokens,
        completion_tokens,
        cached_tokens,
        cache_read,
        cache_creation
    };
    // A usage object as it stands there. The Messages API leaves out of input_tokens what the cache held, and what it
    // took in: they have counts of their own, which mean nothing beside prompt_tokens.
    struct Counts {
        ReportedUsage usage;
        uint64_t cache_read = 0;
        uint64_t cache_creation = 0;
        bool cache_is_beside = false;

        void put(Key key, uint64_t number);
    };

    static constexpr uint8_t kNoKey = 0xff;
    // Open brackets around `usage` in a stream: at most those of choices[0]. Further in it is what a client wrote: the
    // Responses API repeats its tools.
    static constexpr uint32_t kUsageDepth = 3;

    const char* line_bytes(const char* p, const char* end, Piece& piece);
    const char* end_line(const char* p, const char* end, Piece& piece);
    void begin_event();
    void end_event(Piece& piece);
    void document_bytes(const char* p, const char* end);
    void document_rest(const char* p, const char* end);
    const char* skip_blocks(const char* p, const char* end);
    const char* whole_usage(const char* p, const char* end);
    const char* count_member(const char* p, const char* end, bool innermost, Key& key) const;
    const char* json_bytes(const char* p, const char* end, size_t room = 0);
    void json_line_end();
    const char* outside_bytes(const char* p, const char* end, size_t room);
    const char* count_bytes(const char* p, const char* end);
    void begin_string();
    const char* string_bytes(const char* p, const char* end);
    Key classify(std::string_view name) const;
    Key count_key(std::string_view name, bool innermost) const;
    const char* value_byte(const char* p);
    void close_bracket();
    void end_number();
    void saw_content();

    Framing framing_ = Framing::sse;
    // Lines and events.
    Line line_ = Line::start;
    bool at_start_ = true;         // no byte yet: a byte order mark may come
    bool after_cr_ = false;        // the last byte was CR: an LF belongs to it
    bool after_event_cr_ = false;  // ... and that CR ended an event
    bool event_empty_ = true;      // no line since the last blank one
    uint8_t matched_ = 0;          // bytes of the field name, of [DONE] or of the byte order mark
    StreamEvent last_kind_ = StreamEvent::other;
    // The open event.
    bool event_data_ = false;  // has a data line
    bool event_done_ = false;
    bool event_error_ = false;
    bool event_content_ = false;
    bool event_usage_ = false;
    // Of the Responses API: its number, a piece of text, and the response as a whole.
    bool event_sequence_ = false;
    bool event_delta_ = false;
    bool event_response_ = false;
    bool event_choices_empty_ = false;
    bool event_choices_full_ = false;
    // The last event of kind content, without usage, that came in one piece.
    EventPattern pattern_;
    const char* text_ = nullptr;  // where its first text begins; valid within the call of next() that set it
    // Its payload (all data lines), or the document.
    Token token_ = Token::outside;
    Key key_ = Key::none;  // whose value is being read
    bool in_usage_ = false;
    bool usage_counted_ = false;  // the open usage object has a count
    uint32_t depth_ = 0;          // open brackets
    uint32_t usage_depth_ = 0;    // ... inside the usage object
    uint8_t key_size_ = 0;        // kNoKey: too long, or with escapes
    char key_bytes_[27];          // the longest that matters
    uint64_t number_ = 0;
    Counts pending_;
    // Results.
    std::optional<Counts> usage_;
    uint64_t content_events_ = 0;
    bool content_seen_ = false;
    bool done_ = false;
    bool error_seen_ = false;
    bool json_complete_ = false;
};

inline void UsageScan::Counts::put(Key key, uint64_t number) {
    switch (key) {
        case Key::prompt_tokens:
        case Key::input_tokens:
            usage.prompt_tokens = number;
            cache_is_beside = key == Key::input_tokens;
            break;
        case Key::completion_tokens:
            usage.completion_tokens = number;
            break;
        case Key::cache_read:
            cache_read = number;
            break;
        case Key::cache_creation:
            cache_creation = number;
            break;
        default:
            usage.cached_tokens = number;
            break;
    }
}

}  // namespace llm::core
