#include "engine_worker/server/answer.hpp"

#include <utility>

#include "engine_worker/server/json_text.hpp"

namespace llm::engine {

Answer::Answer(AnswerShape shape, const Request& request, std::string id, const Tokenizer& tokenizer)
    : shape_(std::move(shape)),
      tokenizer_(tokenizer),
      id_(std::move(id)),
      open_(request.prompts.size() * static_cast<size_t>(request.n)) {
    for (const auto& prompt : request.prompts) {
        prompt_tokens_ += static_cast<int32_t>(prompt.size());
    }
}

void Answer::fail(const ApiError& error, std::string& out) {
    out += "data: " + error_json(error) + "\n\n";
}

std::string Answer::token_text(int32_t token) const {
    return tokenizer_.token_bytes(token, false, false);
}

// How a token is named in log probabilities.
std::string Answer::token_name(int32_t token) const {
    return shape_.token_ids ? "token_id:" + std::to_string(token) : token_text(token);
}

void Answer::write_token(std::string& out, const TokenLogprob& token) const {
    const std::string text = token_text(token.token);
    out += "{\"token\":";
    append_json_string(out, token_name(token.token));
    out += ",\"logprob\":";
    append_json_number(out, token.logprob);
    out += ",\"bytes\":[";
    for (size_t i = 0; i < text.size(); ++i) {
        out += i == 0 ? "" : ",";
        out += std::to_string(static_cast<unsigned char>(text[i]));
    }
    out += ']';
}

void Answer::write_logprobs(std::string& out, std::span<const std::vector<TokenLogprob>> entries) const {
    out += '[';
    for (size_t i = 0; i < entries.size(); ++i) {
        const auto& entry = entries[i];
        out += i == 0 ? "" : ",";
        write_token(out, entry.front());
        out += ",\"top_logprobs\":[";
        for (size_t j = 1; j < entry.size(); ++j) {
            out += j == 1 ? "" : ",";
            write_token(out, entry[j]);
            out += '}';
        }
        out += "]}";
    }
    out += ']';
}

}  // namespace llm::engine
