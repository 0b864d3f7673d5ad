// What the fuzz targets of the text layer share.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>

namespace llm::core {

// Stops the fuzzer at a broken promise.
inline void require(bool condition, const char* what) {
    if (!condition) {
        std::fprintf(stderr, "broken: %s\n", what);
        std::abort();
    }
}

// Splits `text` at places that follow from `seed`, and gives each piece to `take` in an allocation of its
// own, so that AddressSanitizer sees a read beyond it.
template <typename Take>
void for_pieces(std::string_view text, uint32_t seed, Take take) {
    uint32_t state = seed * 2654435761u + 1;
    const uint32_t largest = seed % 4 == 0 ? 1 : seed % 4 == 1 ? 7 : seed % 4 == 2 ? 90 : 700;
    while (!text.empty()) {
        state = state * 1664525u + 1013904223u;
        size_t size = 1 + (state >> 16) % largest;
        size = size < text.size() ? size : text.size();
        const std::unique_ptr<char[]> copy(new char[size]);
        text.copy(copy.get(), size);
        take(std::string_view(copy.get(), size));
        text.remove_prefix(size);
    }
}

}  // namespace llm::core
