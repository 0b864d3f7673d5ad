// Incremental scanner for multipart/form-data bodies (audio and image uploads), RFC 7578 over RFC 2046.
//
// Finds the control fields model, stream, priority, n and routing-mode. Stricter than the RFCs where form
// parsers of engines differ, for the same reason as in json_scan.hpp: no preamble and no epilogue, CRLF line
// ends only, each part has exactly one Content-Disposition with exactly one `name`, no `name*`, no folded
// header lines, no transfer encoding of a control field, control fields occur once and are no files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ngx_module/core/text/control_keys.hpp"

namespace llm::core {

// Plain state, no heap, trivially copyable, below 3 KB. O(bytes); file contents are skipped with memchr.
class MultipartScan {
  public:
    static constexpr size_t kMaxBoundary = 70;       // RFC 2046, section 5.1.1
    static constexpr size_t kMaxHeaderLine = 1024;   // bytes of one header line of a part
    static constexpr size_t kMaxPartHeaders = 4096;  // bytes of all header lines of a part
    static constexpr uint32_t kMaxParts = 1000;

    // True if the media type is multipart/form-data (any case), with or without a usable boundary.
    static bool is_multipart(std::string_view content_type);

    // Takes the boundary from a Content-Type value, quoted or not. False = not multipart/form-data, no
    // boundary, two of them, or one with forbidden bytes or of a wrong length; the scanner has then failed.
    bool begin(std::string_view content_type);

    // Next piece of the body. After a failure further pieces are ignored.
    void feed(std::string_view chunk);

    // End of body. True = the closing boundary was seen and everything before it is acceptable; call once.
    bool finish();

    bool failed() const { return error_kind_ != ErrorKind::none; }
    ErrorKind error_kind() const { return error_kind_; }
    const char* error() const { return error_; }  // static text; "" without an error
    std::string_view error_key() const;           // control field at fault, static text; else empty
    uint64_t error_offset() const { return error_offset_; }  // bytes of the body that had been scanned by then

    // Only model, stream, priority, n and routing-mode (with the spans of model and priority) and text_bytes
    // (the bytes of fields that are no files) are ever set. An empty stream, priority or n counts as absent.
    const ControlKeys& keys() const { return keys_; }

  private:
    enum class State : uint8_t {
        first_boundary,
        boundary_end,
        closing_dash,
        boundary_lf,
        header_line,
        header_lf,
        body,
        epilogue,
        failed
    };
    // Order of kFieldNames in multipart.cpp.
    enum class Field : uint8_t { none, model, stream, priority, n, routing_mode };

    const char* step(const char* p, const char* end);
    const char* header_bytes(const char* p, const char* end);
    const char* body_bytes(const char* p, const char* end);
    void begin_part();
    void end_header_line();
    bool parse_disposition(std::string_view value);
    void begin_body(const char* p);
    void content(const char* p, size_t size);
    void end_part();
    void set_field(std::string_view value);
    uint64_t offset(const char* p) const { return base_ + static_cast<uint64_t>(p - chunk_); }
    void fail(ErrorKind kind, const char* text, Field field = Field::none);

    const char* chunk_ = nullptr;  // start of the piece being scanned, valid during feed()
    uint64_t base_ = 0;            // offset of chunk_ in the body
    State state_ = State::failed;
    uint8_t delimiter_size_ = 0;
    uint8_t matched_ = 0;               // bytes of the delimiter matched so far
    char delimiter_[4 + kMaxBoundary];  // CR LF, two dashes and the boundary
    uint32_t parts_ = 0;
    // The part that is open.
    bool has_disposition_ = false;
    bool is_file_ = false;
    bool encoded_ = false;
    bool overflow_ = false;  // the value did not fit into value_
    Field field_ = Field::none;
    uint16_t line_size_ = 0;
    uint16_t headers_size_ = 0;
    uint16_t value_size_ = 0;
    Span content_;
    char line_[kMaxHeaderLine];
    char value_[ControlKeys::kMaxModel];
    // All parts.
    uint32_t seen_ = 0;  // bit per Field
    Field too_long_ = Field::none;
    ControlKeys keys_;
    ErrorKind error_kind_ = ErrorKind::none;
    Field error_field_ = Field::none;
    const char* error_ = "";
    uint64_t error_offset_ = 0;
};

static_assert(sizeof(MultipartScan) < 3072);

}  // namespace llm::core
