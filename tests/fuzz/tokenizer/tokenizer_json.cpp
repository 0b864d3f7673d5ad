// A tokenizer.json and, behind a NUL byte, a text: loading may only throw std::runtime_error, and what loads
// encodes, decodes and streams any text into valid UTF-8 with ids of its own vocabulary.
#include <cstdint>
#include <cstdlib>
#include <stdexcept>

#include "engine_worker/tokenizer/tokenizer.hpp"
#include "engine_worker/tokenizer/unicode.hpp"

using llm::engine::StreamDecoder;
using llm::engine::Tokenizer;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view input(reinterpret_cast<const char*>(data), size);
    const size_t nul = std::min(input.find('\0'), size);
    const std::string_view text = input.substr(std::min(nul + 1, size));
    std::unique_ptr<Tokenizer> tokenizer;
    try {
        tokenizer = Tokenizer::parse(input.substr(0, nul));
    } catch (const std::runtime_error&) {
        return 0;
    }
    for (const bool special : {true, false}) {
        std::vector<int32_t> ids;
        try {
            ids = tokenizer->encode(text, {.add_special = special, .parse_special = special});
        } catch (const std::runtime_error&) {  // a pattern that PCRE2 gives up on
            return 0;
        }
        StreamDecoder stream(*tokenizer);
        std::string streamed;
        for (const int32_t id : ids)
            streamed += stream.push(id);
        streamed += stream.flush();
        if (!llm::engine::unicode::is_valid_utf8(streamed) ||
            !llm::engine::unicode::is_valid_utf8(tokenizer->decode(ids, !special)))
            std::abort();
    }
    return 0;
}
