// What a request demands of the form of its answers: response_format and tool_choice, as a grammar.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine_worker/grammar/compiled_grammar.hpp"
#include "engine_worker/grammar/json_rules.hpp"
#include "engine_worker/server/api_params.hpp"
#include "engine_worker/tokenizer/chat_template.hpp"
#include "engine_worker/tokenizer/tokenizer.hpp"

namespace llm::engine {

// How a model writes the call of a tool.
enum class ToolFormat : uint8_t {
    tags,  // <tool_call>\n{"name":…,"arguments":{…}}\n</tool_call>, one or several (Hermes, Qwen)
    json,  // {"name":…,"parameters":{…}} as the whole text, one (Llama 3)
};

// What the template tells the model to write.
ToolFormat tool_format_of(const ChatTemplate& chat_template);

// Grammars that were asked for lately: the second request with a schema finds its grammar compiled and its
// masks known. Safe to use from several threads at once; compiling holds nobody up.
class GrammarCache {
  public:
    // `vocab_size` is that of the model's logits. O(bytes of the vocabulary · log tokens).
    GrammarCache(const Tokenizer& tokenizer, int32_t vocab_size)
        : trie_(std::make_shared<const TokenTrie>(TokenTrie::of(tokenizer, vocab_size))) {}

    // The grammar known as `key`, else what `make` gives; that of a very long key is not kept.
    std::shared_ptr<CompiledGrammar> get(const std::string& key, const std::function<Grammar()>& make);

  private:
    static constexpr size_t kMaxGrammars = 32;
    static constexpr size_t kMaxKey = 1U << 20;  // bytes
    using Entry = std::pair<std::string, std::shared_ptr<CompiledGrammar>>;

    std::shared_ptr<CompiledGrammar> find(const std::string& key);

    std::shared_ptr<const TokenTrie> trie_;
    std::mutex mutex_;  // of what follows
    std::list<Entry> recent_;  // first: used last
    std::unordered_map<std::string, std::list<Entry>::iterator> known_;
};

struct Constraint {
    enum class Response : uint8_t { free, object, schema } response = Response::free;
    OrderedJson schema;  // of Response::schema

    // Calls that the answer may, or must, consist of.
    enum class Calls : uint8_t { none, allowed, required } calls = Calls::none;
    struct Tool {
        std::string name;
        OrderedJson parameters;  // null: it takes none
        std::string param;       // its place in the request, for messages
    };
    std::vector<Tool> tools;
    bool several_calls = true;
    ToolFormat format = ToolFormat::json;

    // Reasoning before the answer: the prompt has opened <think>, or the model may do so.
    enum class Thinking : uint8_t { no, may, open } thinking = Thinking::no;

    // False: any text will do.
    bool constrains() const { return response != Response::free || calls == Calls::required; }
};

// Reads `response_format`; ApiError for what is malformed or not supported.
void read_response_format(const Params& params, Constraint& out);

// The grammar of a constraint that constrains. ApiError that names what its schemas ask for in vain.
std::shared_ptr<CompiledGrammar> compile(const Constraint& constraint, GrammarCache& cache);

}  // namespace llm::engine
