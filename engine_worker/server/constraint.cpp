#include "engine_worker/server/constraint.hpp"

#include <utility>

#include "engine_worker/grammar/automaton.hpp"
#include "engine_worker/grammar/json_schema.hpp"
#include "engine_worker/server/api_error.hpp"

namespace llm::engine {
namespace {

constexpr std::string_view kThink = "<think>";
constexpr std::string_view kThinkEnd = "</think>";
constexpr int kSpaceBehindThinking = 4;
constexpr int32_t kMaxCalls = 128;

// Any text up to and with </think>. As '<' stands only at the start of the tag, a mismatch leads back to the
// first or second state and nowhere else.
int32_t add_thoughts(GrammarBuilder& builder, int32_t from) {
    const int32_t rule = builder.rule_of(from);
    std::vector<int32_t> states = {from};
    for (size_t i = 0; i < kThinkEnd.size(); ++i) {
        states.push_back(builder.add_node(rule));
    }
    const auto first = static_cast<uint8_t>(kThinkEnd[0]);
    for (size_t i = 0; i < kThinkEnd.size(); ++i) {
        const auto next = static_cast<uint8_t>(kThinkEnd[i]);
        int low = 0;
        for (int b = 0; b <= 256; ++b) {  // runs of bytes that lead back to the start
            if (b == 256 || b == first || b == next) {
                if (b > low) {
                    builder.byte(states[i], static_cast<uint8_t>(low), static_cast<uint8_t>(b - 1),
                                 states[0]);
                }
                low = b + 1;
            }
        }
        builder.byte(states[i], next, next, states[i + 1]);
        if (next != first) {
            builder.byte(states[i], first, first, states[1]);
        }
    }
    int32_t at = states.back();
    const int32_t done = builder.add_node(rule);
    for (int i = 0; i < kSpaceBehindThinking; ++i) {
        builder.epsilon(at, done);
        at = builder.literal(at, "\n");
    }
    builder.epsilon(at, done);
    return done;
}

ApiError refused(const std::string& param, const GrammarError& error) {
    return {400, "invalid_request_error", "unsupported_parameter",
            "'" + param + "' cannot be enforced: " + error.what() + ".", param};
}

class ConstraintGrammar {
  public:
    explicit ConstraintGrammar(const Constraint& constraint) : constraint_(constraint), rules_(builder_) {}

    Grammar build() {
        const int32_t root = builder_.add_rule();
        int32_t body = builder_.start(root);
        if (constraint_.thinking == Constraint::Thinking::open) {
            const int32_t thoughts = builder_.add_node(root);
            builder_.epsilon(body, thoughts);
            body = add_thoughts(builder_, thoughts);
        } else if (constraint_.thinking == Constraint::Thinking::may) {
            const int32_t behind = add_thoughts(builder_, builder_.literal(body, kThink));
            builder_.epsilon(body, behind);
            body = behind;
        }
        const int32_t done = builder_.add_node(root);
        builder_.end(done);
        add_response(body, done);
        if (constraint_.calls != Constraint::Calls::none) {
            add_calls(body, done);
        }
        return finish(root);
    }

  private:
    // A schema that nothing satisfies shows only when all is put together.
    Grammar finish(int32_t root) {
        try {
            Grammar grammar = builder_.finish(root);
            if (Automaton(grammar).start() == Automaton::kDead) {
                throw GrammarError("it can begin in too many ways");
            }
            return grammar;
        } catch (const GrammarError& error) {
            throw refused(constraint_.response == Constraint::Response::free ? "tools" : "response_format",
                          error);
        }
    }

    void add_response(int32_t from, int32_t to) {
        if (constraint_.calls == Constraint::Calls::required) {
            return;
        }
        if (constraint_.response == Constraint::Response::object) {
            builder_.call(from, rules_.object(), to);
        } else if (constraint_.response == Constraint::Response::schema) {
            try {
                builder_.call(from, JsonSchemaCompiler(builder_, rules_, constraint_.schema).compile(), to);
            } catch (const GrammarError& error) {
                throw refused("response_format", error);
            }
        }
    }

    void add_calls(int32_t from, int32_t to) {
        const bool tags = constraint_.format == ToolFormat::tags;
        const int32_t call = builder_.add_rule();
        const int32_t open =
            builder_.literal(builder_.start(call), tags ? "<tool_call>\n{\"name\": " : "{\"name\": ");
        const int32_t close = builder_.add_node(call);
        for (const Constraint::Tool& tool : constraint_.tools) {
            const int32_t name = rules_.literal(open, tool.name);
            const int32_t key = builder_.literal(name, tags ? ", \"arguments\": " : ", \"parameters\": ");
            builder_.call(key, parameters(tool), close);
        }
        builder_.end(builder_.literal(close, tags ? "}\n</tool_call>" : "}"));
        const int32_t behind = builder_.then(from, call);
        if (!tags || !constraint_.several_calls) {
            return builder_.epsilon(behind, to);
        }
        const int32_t another = builder_.add_rule();
        builder_.end(builder_.then(builder_.literal(builder_.start(another), "\n"), call));
        builder_.repeat(behind, another, 0, kMaxCalls, to);
    }

    int32_t parameters(const Constraint::Tool& tool) {
        static const OrderedJson kNone = {{"type", "object"}, {"properties", OrderedJson::object()}};
        const OrderedJson& schema = tool.parameters.is_null() ? kNone : tool.parameters;
        try {
            return JsonSchemaCompiler(builder_, rules_, schema).compile();
        } catch (const GrammarError& error) {
            if (constraint_.calls == Constraint::Calls::required) {
                throw refused(tool.param, error);
            }
            return rules_.object();  // nobody asked to enforce the tools' schemas
        }
    }

    const Constraint& constraint_;
    GrammarBuilder builder_;
    JsonRules rules_;
};

std::string key_of(const Constraint& constraint) {
    OrderedJson key = {static_cast<int>(constraint.response), constraint.schema,
                       static_cast<int>(constraint.calls),    constraint.several_calls,
                       static_cast<int>(constraint.format),   static_cast<int>(constraint.thinking)};
    for (const Constraint::Tool& tool : constraint.tools) {
        key.push_back(tool.name);
        key.push_back(tool.parameters);
    }
    return key.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace

ToolFormat tool_format_of(const ChatTemplate& chat_template) {
    return chat_template.source().find("<tool_call>") != std::string_view::npos ? ToolFormat::tags
                                                                                : ToolFormat::json;
}

std::shared_ptr<CompiledGrammar> GrammarCache::find(const std::string& key) {
    const auto found = known_.find(key);
    if (found == known_.end()) {
        return nullptr;
    }
    recent_.splice(recent_.begin(), recent_, found->second);
    return found->second->second;
}

std::shared_ptr<CompiledGrammar> GrammarCache::get(const std::string& key,
                                                   const std::function<Grammar()>& make) {
    {
        const std::lock_guard lock(mutex_);
        if (auto known = find(key)) {
            return known;
        }
    }
    auto made = std::make_shared<CompiledGrammar>(make(), trie_);
    if (key.size() > kMaxKey) {
        return made;
    }
    const std::lock_guard lock(mutex_);
    if (auto known = find(key)) {
        return known;  // another thread was sooner
    }
    recent_.emplace_front(key, std::move(made));
    known_.emplace(key, recent_.begin());
    if (recent_.size() > kMaxGrammars) {
        known_.erase(recent_.back().first);
        recent_.pop_back();
    }
    return recent_.front().second;
}

void read_response_format(const Params& params, Constraint& out) {
    const Json* format = params.find("response_format");
    if (format == nullptr) {
        return;
    }
    const auto wrong = [](const std::string& message) { return bad_value("response_format", message); };
    const std::string type = format->is_object() ? Params(*format).string("type").value_or("") : "";
    if (type == "json_object") {
        out.response = Constraint::Response::object;
    } else if (type == "json_schema") {
        const Json* wrapper = Params(*format).find("json_schema");
        if (wrapper == nullptr || !wrapper->is_object()) {
            throw wrong("'response_format.json_schema' must be an object with a name and a schema.");
        }
        const Params inner(*wrapper);
        if (inner.string("name").value_or("").empty()) {
            throw wrong("'response_format.json_schema.name' is required.");
        }
        inner.boolean("strict");  // enforced in either case
        const Json* schema = inner.find("schema");
        if (schema == nullptr || !(schema->is_object() || schema->is_boolean())) {
            throw wrong("'response_format.json_schema.schema' must be a JSON Schema.");
        }
        out.response = Constraint::Response::schema;
        out.schema = *schema;
    } else if (type != "text") {
        throw wrong("'response_format.type' must be one of text, json_object and json_schema.");
    }
}

std::shared_ptr<CompiledGrammar> compile(const Constraint& constraint, GrammarCache& cache) {
    return cache.get(key_of(constraint), [&] { return ConstraintGrammar(constraint).build(); });
}

}  // namespace llm::engine
