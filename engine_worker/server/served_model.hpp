// The model as the API sees it: names, text in, text out, limits.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine_worker/server/api_params.hpp"
#include "engine_worker/server/constraint.hpp"
#include "engine_worker/server/special_text.hpp"
#include "engine_worker/tokenizer/chat_template.hpp"
#include "engine_worker/tokenizer/tokenizer.hpp"

namespace llm::engine {

// Where the prompt of a chat ends and the answer begins.
struct PromptEnd {
    bool generation_prompt = true;  // behind the template's opening of an answer
    bool continue_final = false;    // in the last message, behind its text: the answer goes on with it
};

struct ServedModel {
    std::vector<std::string> names;  // the first is the main one; any of them may be asked for
    std::unique_ptr<Tokenizer> tokenizer;
    std::unique_ptr<ChatTemplate> chat_template;
    std::unique_ptr<ChatTemplate>
        tool_template;  // for requests with tools; null = the other serves them, too
    std::unique_ptr<SpecialText> special_text;
    std::unique_ptr<GrammarCache> grammars;
    ToolFormat tool_format = ToolFormat::json;
    std::vector<int32_t> end_tokens;
    GenerationDefaults defaults;      // of requests that say nothing else
    Task pooling = Task::embed_last;  // how /v1/embeddings makes one vector of many
    std::string no_embeddings;        // why it does not; empty = it does
    int32_t hidden_size = 0;          // numbers of an embedding
    int32_t vocab_size = 0;           // tokens that the model knows; its tokenizer may have more
    int32_t max_context = 0;          // prompt and answer together
    int32_t max_running = 0;          // sequences at once
    int64_t created = 0;              // seconds since 1970

    bool serves(const std::string& name) const;
    // The template of a request with or without tools.
    const ChatTemplate& template_for(bool tools) const {
        return tools && tool_template != nullptr ? *tool_template : *chat_template;
    }
    SamplingLimits limits() const { return {tokenizer->vocab_size(), max_context, 1, defaults}; }

    // Prompts are counted up to this many tokens: enough to say how far one is too long, and no reason to
    // read all of a text that never ends. For `most` as in Tokenizer::EncodeOptions.
    size_t most_counted() const { return 4 * static_cast<size_t>(max_context); }

    // Ids of a chat as the model's template writes it. `messages` and `tools` (may be null) as the client
    // sent them; throws ApiError.
    std::vector<int32_t> encode_chat(const Json& messages, const Json* tools, const Json* template_kwargs,
                                     const PromptEnd& end, size_t most = SIZE_MAX) const;
};

// The JSON of a file; null when there is none, discarded when it is malformed.
Json read_json(const std::string& path);

// How the model's directory says that embeddings are pooled (1_Pooling/config.json and modules.json of
// sentence-transformers; last token where there is none). False: in a way that is not supported; `why` says
// so.
bool load_pooling(const std::string& dir, Task& pooling, std::string& why);

// The end-of-text ids of a model directory: `eos_token_id` (a number or a list) of generation_config.json and
// config.json, and the tokenizer's own. Missing files are fine, malformed ones throw std::runtime_error.
std::vector<int32_t> load_end_tokens(const std::string& dir, const Tokenizer& tokenizer);

}  // namespace llm::engine
