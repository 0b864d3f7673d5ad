// What a Redis server may send: the same stream gives the same replies however it is cut.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "ngx_module/sources/resp_codec.hpp"

namespace {

using namespace llm::nginx::sources;

void require(bool condition) {
    if (!condition) {
        std::abort();
    }
}

void describe(const redisReply& reply, std::string& out) {
    out += std::to_string(reply.type) + '(';
    out += text_of(reply);
    for (const redisReply* element : elements_of(reply)) {
        if (element != nullptr) {
            describe(*element, out);
        }
    }
    out += ')';
}

std::string read_all(std::string_view stream, size_t piece) {
    ReplyReader reader;
    std::string out;
    for (size_t at = 0; at < stream.size(); at += piece) {
        if (!reader.feed(stream.substr(at, piece))) {
            break;
        }
        while (const Reply reply = reader.next()) {
            describe(*reply, out);
        }
    }
    return out + (reader.error().empty() ? "" : "!");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 1 || size > 4096) {
        return 0;
    }
    const std::string_view stream(reinterpret_cast<const char*>(data) + 1, size - 1);
    const size_t piece = data[0] % 16 + 1;
    require(read_all(stream, piece) == read_all(stream, stream.size() + 1));
    return 0;
}
