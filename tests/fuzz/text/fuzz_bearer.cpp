// A token that parse_bearer() lets through is what it promises, and lies within the header.
#include "ngx_module/core/text/bearer.hpp"

#include <algorithm>

#include "tests/fuzz/text/fuzz_input.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace llm::core;
    const std::unique_ptr<char[]> copy(new char[size]);
    std::copy(data, data + size, copy.get());
    const std::string_view value(copy.get(), size);
    const Bearer loose = parse_bearer(value);
    const Bearer exact = parse_bearer_exact(value);
    for (const Bearer& bearer : {loose, exact}) {
        require(bearer.token.empty() == (bearer.status != BearerStatus::ok), "a token only where it is ok");
        if (bearer.status != BearerStatus::ok) {
            continue;
        }
        require(bearer.token.data() >= value.data() + 7 &&
                    bearer.token.data() + bearer.token.size() <= value.data() + size,
                "the token lies behind the scheme");
        require(bearer.token.size() <= kMaxBearerToken, "the token's size");
        for (char c : bearer.token) {
            require(c > 0x20 && c < 0x7f, "a byte that is not visible");
        }
    }
    require((loose.status == BearerStatus::missing) == (exact.status == BearerStatus::missing),
            "what is missing");
    if (exact.status == BearerStatus::ok && loose.status == BearerStatus::ok) {
        require(exact.token == loose.token, "two tokens in one header");
    }
    return 0;
}
