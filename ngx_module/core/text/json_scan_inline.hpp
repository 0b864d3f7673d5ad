// Short functions that the inner loops of several files call. Internal to json_scan*.cpp.
#pragma once

#include "ngx_module/core/text/json_scan.hpp"

namespace llm::core {

constexpr std::string_view kDataUri = "data:";
constexpr uint8_t kNoData = 0xff;  // JsonScan::data_match_ of a string that is no data: URI

// An element of the array `prompt` begins that is a prompt of its own.
inline void JsonScan::count_prompt() {
    if (prompts_counted_ && keys_.prompt_count < ControlKeys::kMaxCount) {
        ++keys_.prompt_count;
    }
    prompts_counted_ = true;
}

inline void JsonScan::begin_container(const char* p, bool object) {
    if (key_ != Key::none && key_ < Key::prompt && !(object && key_ == Key::stream_options)) {
        wrong_type(p);
        return;
    }
    if (depth_ == kMaxDepth) {
        fail(ErrorKind::depth, "nested too deep", p);
        return;
    }
    if (place_ == Place::prompts) {
        count_prompt();
    }
    const Key key = key_;
    key_ = Key::none;
    if (object) {
        enter(key == Key::stream_options ? Place::options : Place::object, State::object_first);
    } else {
        enter(key == Key::prompt         ? Place::prompts
              : key != Key::none         ? Place::inputs
              : place_ <= Place::prompts ? Place::tokens
                                         : Place::array,
              State::array_first);
    }
}

inline void JsonScan::enter(Place place, State first) {
    outer_[depth_++] = place_;
    place_ = place;
    state_ = first;
}

inline void JsonScan::leave() {
    place_ = outer_[--depth_];
}

inline void JsonScan::end_container(const char* p, bool object) {
    if ((place_ >= Place::object) != object) {
        fail(ErrorKind::syntax, "brackets do not match", p);
        return;
    }
    if (place_ == Place::top) {
        depth_ = 0;
        keys_.object_empty = state_ == State::object_first;
        keys_.object_end = offset(p);
        state_ = State::done;
        return;
    }
    if (place_ == Place::options) {
        keys_.stream_options_empty = state_ == State::object_first;
        keys_.stream_options_span.end = offset(p) + 1;
    }
    leave();
    end_value();
}

// A string value begins with the quote at `p`.
inline void JsonScan::begin_text(const char* p) {
    state_ = State::string;
    string_is_key_ = false;
    count_text_ = true;
    data_match_ = 0;
    capturing_ = false;
    if (place_ == Place::prompts) {
        count_prompt();
    }
    if (key_ == Key::none) {
        return;
    }
    if (Span* span = span_of(key_)) {
        span->begin = offset(p);
    }
    overflow_ = false;
    capturing_ = key_ == Key::model || key_ == Key::routing_mode;
    if (!capturing_ && key_ < Key::prompt) {
        wrong_type(p);
    }
}

// Decoded bytes of the open string, at least one.
inline void JsonScan::append(const char* p, size_t size) {
    if (count_text_) {
        if (data_match_ != kNoData) {
            match_data_uri(p, size);
        }
        keys_.text_bytes += count_text_ ? size : 0;
    }
    if (capturing_ && !overflow_) {
        capture(p, size);
    }
}

// One decoded byte of ASCII.
inline void JsonScan::append_byte(char byte) {
    if (capturing_ || (count_text_ && data_match_ != kNoData)) {
        append_code_point(static_cast<uint8_t>(byte));
    } else {
        keys_.text_bytes += count_text_ ? 1 : 0;
    }
}

}  // namespace llm::core
