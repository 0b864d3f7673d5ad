// The same bytes, whole and byte by byte, must be understood alike, within the limits.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "engine_worker/server/http_parser.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace llm::engine;
    HttpLimits limits;
    limits.max_head = 512;
    limits.max_headers = 8;
    limits.max_body = 256;
    const std::string_view input(reinterpret_cast<const char*>(data), size);

    HttpParser whole(limits);
    const size_t used = whole.feed(input);
    HttpParser bytes(limits);
    size_t used_bytes = 0;
    while (used_bytes < size && bytes.feed(input.substr(used_bytes, 1)) == 1) {
        ++used_bytes;
    }
    const auto same = [](HttpParser& a, HttpParser& b) {
        return a.state() == b.state() && a.request().body == b.request().body &&
               a.request().path == b.request().path && a.request().headers == b.request().headers;
    };
    if (used != used_bytes || !same(whole, bytes) || whole.request().body.size() > limits.max_body ||
        whole.request().headers.size() > limits.max_headers) {
        abort();
    }
    return 0;
}
