#include "ngx_module/sources/resp_codec.hpp"

#include <utility>

namespace llm::nginx::sources {
namespace {

// How hiredis gives the length of an array: int before version 1.0, size_t since.
template <class Count>
Count count_of(void* (*create_array)(const redisReadTask*, Count));
using Count = decltype(count_of(redisReplyObjectFunctions{}.createArray));

// hiredis allocates an array as soon as its length is announced; ours refuses lengths that nobody means.
redisReplyObjectFunctions bounded_functions() {
    redisReader* reader = redisReaderCreate();
    if (reader == nullptr) {
        return {};
    }
    static const redisReplyObjectFunctions kDefault = *reader->fn;
    redisReaderFree(reader);
    redisReplyObjectFunctions bounded = kDefault;
    bounded.createArray = [](const redisReadTask* task, Count elements) -> void* {
        return std::cmp_greater(elements, kMaxReplyElements) ? nullptr : kDefault.createArray(task, elements);
    };
    return bounded;
}

}  // namespace

void append_command(std::string& out, std::span<const std::string_view> words) {
    out += '*' + std::to_string(words.size()) + "\r\n";
    for (const std::string_view word : words) {
        out += '$' + std::to_string(word.size()) + "\r\n";
        out += word;
        out += "\r\n";
    }
}

ReplyReader::ReplyReader() {
    static redisReplyObjectFunctions functions = bounded_functions();
    if (functions.createArray != nullptr) {
        reader_.reset(redisReaderCreateWithFunctions(&functions));
    }
    if (!reader_) {
        error_ = "out of memory";
    }
}

bool ReplyReader::feed(std::string_view bytes) {
    if (!error_.empty()) {
        return false;
    }
    if (redisReaderFeed(reader_.get(), bytes.data(), bytes.size()) != REDIS_OK) {
        error_ = redisReaderGetError(reader_.get());
    } else if (reader_->len - reader_->pos > kMaxReplyBytes) {
        error_ = "a reply is too large";
    }
    return error_.empty();
}

Reply ReplyReader::next() {
    void* reply = nullptr;
    if (error_.empty() && redisReaderGetReply(reader_.get(), &reply) != REDIS_OK) {
        error_ = redisReaderGetError(reader_.get());
        return nullptr;
    }
    return Reply(static_cast<redisReply*>(reply));
}

}  // namespace llm::nginx::sources
