#include "engine_worker/reporter/adapter.hpp"

#include <string>

namespace llm::reporter {

std::span<const Adapter* const> adapters() {
    static const Adapter* const all[] = {&kVllm,   &kSglang,   &kLlamaCpp, &kTgi,   &kTensorRtLlm,
                                         &kTriton, &kLmdeploy, &kLightllm, &kOllama};
    return all;
}

const Adapter* find_adapter(std::string_view kind) {
    for (const Adapter* adapter : adapters()) {
        if (adapter->kind == kind) {
            return adapter;
        }
    }
    return nullptr;
}

std::string_view adapter_names() {
    static const std::string names = [] {
        std::string out;
        for (const Adapter* adapter : adapters()) {
            out += (out.empty() ? "" : ", ") + std::string(adapter->kind);
        }
        return out;
    }();
    return names;
}

}  // namespace llm::reporter
