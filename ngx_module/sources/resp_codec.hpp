// The Redis protocol as hiredis reads and writes it, with bounds: a server cannot make a worker allocate
// without end.
#pragma once

#include <hiredis/hiredis.h>

#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace llm::nginx::sources {

inline constexpr size_t kMaxReplyBytes = size_t{16} << 20;  // one reply, unfinished
inline constexpr int kMaxReplyElements = 1 << 20;           // one array

struct FreeReply {
    void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;

inline std::string_view text_of(const redisReply& reply) {
    return reply.str == nullptr ? std::string_view{}
                                : std::string_view(reply.str, static_cast<size_t>(reply.len));
}
inline bool is_text(const redisReply& reply) {
    return reply.type == REDIS_REPLY_STRING || reply.type == REDIS_REPLY_STATUS;
}
inline bool is_error(const redisReply& reply) {
    return reply.type == REDIS_REPLY_ERROR;
}
inline std::span<redisReply* const> elements_of(const redisReply& reply) {
    return reply.type == REDIS_REPLY_ARRAY ? std::span<redisReply* const>(reply.element, reply.elements)
                                           : std::span<redisReply* const>();
}

// Appends one command. O(bytes). Never fails: memory apart, any words make a command.
void append_command(std::string& out, std::span<const std::string_view> words);
inline void append_command(std::string& out, std::initializer_list<std::string_view> words) {
    append_command(out, std::span(words.begin(), words.size()));
}

// Cuts a stream of bytes into replies.
class ReplyReader {
  public:
    ReplyReader();

    // Takes the next bytes of the stream. False when the stream is broken for good: see error().
    bool feed(std::string_view bytes);

    // The next whole reply; null when more bytes are needed, or when the stream turned out broken (error()
    // says).
    Reply next();

    // Empty while the stream is sound.
    const std::string& error() const { return error_; }

  private:
    struct FreeReader {
        void operator()(redisReader* reader) const { redisReaderFree(reader); }
    };
    std::unique_ptr<redisReader, FreeReader> reader_;
    std::string error_;
};

}  // namespace llm::nginx::sources
