// What a model has written, whole and byte by byte, must be taken apart alike, and no text may get lost in a
// plain answer.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "engine_worker/server/chat_output.hpp"

namespace {

// All parts of a message as they reach a client, pieces of calls put together.
llm::engine::ChatDelta parts_of(std::string_view text, size_t piece,
                                const llm::engine::ChatOutput::Options& options) {
    llm::engine::ChatOutput output(options);
    llm::engine::ChatDelta all;
    const auto add = [&all](llm::engine::ChatDelta&& delta) {
        all.reasoning += delta.reasoning;
        all.content += delta.content;
        for (llm::engine::ToolCall& call : delta.calls) {
            if (call.continues) {
                if (all.calls.empty() || !call.name.empty()) {
                    abort();
                }
                all.calls.back().arguments += call.arguments;
            } else {
                all.calls.push_back(call);
            }
        }
    };
    for (size_t at = 0; at < text.size(); at += piece) {
        llm::engine::ChatDelta delta;
        output.push(text.substr(at, piece), delta);
        add(std::move(delta));
    }
    llm::engine::ChatDelta delta;
    output.finish(delta);
    add(std::move(delta));
    return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) {
        return 0;
    }
    llm::engine::ChatOutput::Options options;
    options.tools = (data[0] & 1) != 0;
    options.one_call = (data[0] & 2) != 0;
    options.thinking = (data[0] & 4) != 0;
    if ((data[0] & 8) != 0) {
        options.names = {"f"};
    }
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    const auto whole = parts_of(text, text.size() + 1, options);
    const auto bytes = parts_of(text, 1, options);
    bool same = whole.reasoning == bytes.reasoning && whole.content == bytes.content &&
                whole.calls.size() == bytes.calls.size();
    for (size_t i = 0; same && i < whole.calls.size(); ++i) {
        same = whole.calls[i].name == bytes.calls[i].name &&
               whole.calls[i].arguments == bytes.calls[i].arguments;
    }
    if (!same || (options.one_call && whole.calls.size() > 1)) {
        abort();
    }
    return 0;
}
