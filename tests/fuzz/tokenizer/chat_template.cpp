// Any template, rendered with a conversation and functions: it parses and renders, or throws
// std::runtime_error (TemplateError is one); the text is valid UTF-8 and within its limit.
#include <cstdint>
#include <cstdlib>
#include <stdexcept>

#include "engine_worker/tokenizer/chat_template.hpp"
#include "engine_worker/tokenizer/unicode.hpp"

using llm::engine::ChatTemplate;

namespace {

ChatTemplate::Context make_context() {
    ChatTemplate::Context context;
    context.messages = nlohmann::ordered_json::parse(R"([
        {"role": "system", "content": " Be \u00e9l\u00e9gant. "},
        {"role": "user", "content": [{"type": "text", "text": "Hi \ud83d\ude00"}]},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "call00001", "function": {"name": "f", "arguments": {"a": 1.5, "b": [1, null, true]}}}]},
        {"role": "tool", "content": "{}", "tool_call_id": "call00001"},
        {"role": "user", "content": "So?"}])");
    context.tools = nlohmann::ordered_json::parse(
        R"([{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}}])");
    context.bos_token = "<s>";
    context.eos_token = "</s>";
    context.extra = nlohmann::ordered_json::parse(
        R"({"n": 3, "s": "Hello", "d": {"b": 1, "a": 2}, "numbers": [3, 1, 2]})");
    context.now = 1795046400;
    return context;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const ChatTemplate::Context kContext = make_context();
    try {
        const std::string text =
            ChatTemplate::parse(std::string_view(reinterpret_cast<const char*>(data), size))
                ->render(kContext);
        if (!llm::engine::unicode::is_valid_utf8(text) || text.size() > 5 * 1024 * 1024)
            std::abort();
    } catch (const std::runtime_error&) {
    }
    return 0;
}
