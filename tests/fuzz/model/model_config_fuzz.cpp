// Any text as config.json and generation_config.json (split at the first NUL): a configuration whose sizes make
// sense, or one clear error.
#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "engine_worker/model/config.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace llm::engine;
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const size_t split = text.find('\0');
    const std::string_view config_json = text.substr(0, split);
    const std::string_view generation_json = split == text.npos ? std::string_view() : text.substr(split + 1);
    try {
        const ModelConfig config = parse_model_config(config_json, generation_json);
        if (config.dim <= 0 || config.head_dim <= 0 || config.head_dim % 2 != 0 || config.n_kv_heads <= 0 ||
            config.n_heads % config.n_kv_heads != 0 || config.vocab_size <= 0 || config.max_context <= 0 ||
            config.window.size() != static_cast<size_t>(config.n_layers)) {
            abort();
        }
        for (const int32_t id : config.eos_ids) {
            if (id < 0 || id >= config.vocab_size) {
                abort();
            }
        }
        if (rope_frequencies(config).size() != static_cast<size_t>(config.head_dim / 2)) {
            abort();
        }
    } catch (const std::runtime_error& error) {
        const std::string_view what = error.what();
        if (what.find("config.json: ") == what.npos) {
            abort();
        }
    }
    return 0;
}
