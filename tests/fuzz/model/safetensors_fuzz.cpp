// Any bytes as a safetensors file: either an index whose every promise holds, or one clear error.
#include <cstdlib>
#include <span>
#include <stdexcept>

#include "engine_worker/model/safetensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace llm::engine;
    try {
        const TensorIndex index = parse_safetensors_header(std::as_bytes(std::span(data, size)), size, "file");
        for (const auto& [name, entry] : index) {
            uint64_t bytes = dtype_size(entry.dtype);
            for (const int64_t extent : entry.shape) {
                bytes *= static_cast<uint64_t>(extent);
            }
            if (entry.begin > entry.end || entry.end > size || entry.end - entry.begin != bytes) {
                abort();
            }
            // Touch what a reader would touch.
            volatile uint8_t sink = 0;
            if (entry.begin < entry.end) {
                sink = static_cast<uint8_t>(data[entry.begin] ^ data[entry.end - 1]);
            }
            (void)sink;
        }
    } catch (const std::runtime_error& error) {
        if (std::string_view(error.what()).substr(0, 6) != "file: ") {
            abort();
        }
    }
    return 0;
}
