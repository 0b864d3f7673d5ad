// Short functions that the inner loops of several files call. Internal to json_scan*.cpp.
#pragma once

#include "ngx_module/core/text/json_scan.hpp"

namespace llm::core {

constexpr uint8_t kNoData = 0xff;  // JsonScan::data_match_ of a string that is no data: URI

// An element of an array `prompt` begins that is a prompt of its own.
inline void JsonScan::count_prompt() {
    if (!count_prompts_) {
        return;
    }
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
    if (depth_ == 1) {
        in_stream_options_ = key_ == Key::stream_options;
        in_tokens_ = key_ >= Key::prompt && !object;
        count_prompts_ = key_ == Key::prompt && !object;
    } else if (depth_ == 2) {
        count_prompt();
    }
    key_ = Key::none;
    push(object);
}

// A container begins that is no value of a control key, and not too deep.
inline void JsonScan::enter(bool object) {
    if (depth_ == 2) {
        count_prompt();
    }
    push(object);
}

inline void JsonScan::push(bool object) {
    const uint64_t bit = 1ull << (depth_ & 63);
    uint64_t& word = object_bits_[depth_ >> 6];
    word = object ? word | bit : word & ~bit;
    ++depth_;
    in_object_ = object;
    state_ = object ? State::object_first : State::array_first;
}

inline void JsonScan::end_container(const char* p, bool object) {
    if (in_object_ != object) {
        fail(ErrorKind::syntax, "brackets do not match", p);
        return;
    }
    --depth_;
    if (depth_ == 0) {
        keys_.object_end = offset(p);
        state_ = State::done;
        return;
    }
    in_object_ = (object_bits_[(depth_ - 1) >> 6] >> ((depth_ - 1) & 63)) & 1;
    if (depth_ == 1) {
        if (in_stream_options_) {
            keys_.stream_options_span.end = offset(p) + 1;
        }
        in_stream_options_ = false;
        in_tokens_ = false;
        count_prompts_ = false;
    }
    end_value();
}

// A string value begins with the quote at `p`.
inline void JsonScan::begin_text(const char* p) {
    state_ = State::string;
    string_is_key_ = false;
    count_text_ = true;
    data_match_ = 0;
    capturing_ = false;
    if (depth_ == 2) {
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

}  // namespace llm::core
