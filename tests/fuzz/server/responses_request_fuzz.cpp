// Any body of POST /v1/responses is either refused by an ApiError, in the client's own names, or becomes a
// call whose answer and stream are JSON and agree, whatever the model writes: here the body itself.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "engine_worker/server/api_error.hpp"
#include "engine_worker/server/bounded_json.hpp"
#include "engine_worker/server/load_model.hpp"
#include "engine_worker/server/responses_answer.hpp"
#include "engine_worker/server/responses_request.hpp"

namespace {

using llm::engine::Json;

const llm::engine::ServedModel& model() {
    static const llm::engine::LoadedModel loaded = [] {
        llm::engine::Options options;
        options.backend = "sim";
        options.model = "sim";
        return llm::engine::load_model(options);
    }();
    loaded.model->max_context = 4096;
    return *loaded.model;
}

void check(bool right) {
    if (!right) {
        abort();
    }
}

llm::engine::Event event(std::string_view text, llm::engine::FinishReason finish) {
    llm::engine::Event out;
    out.text = text;
    out.finish = finish;
    return out;
}

void check_answer(const llm::engine::GenerationCall& call, std::string_view text) {
    using llm::engine::FinishReason;
    llm::engine::ResponsesAnswer answer(call.shape, call.request, "resp_1", 0, *model().tokenizer);
    std::string events;
    for (const char c : text) {
        answer.take(event(std::string_view(&c, 1), FinishReason::none));
        answer.drain(events);
    }
    answer.take(event("", FinishReason::stop));
    answer.drain(events);
    const size_t last = events.rfind("\ndata: ");
    check(last != std::string::npos);
    const Json stream = Json::parse(std::string_view(events).substr(last + 7));
    check(stream["type"] == "response.completed" && stream["response"] == Json::parse(answer.json()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view body(reinterpret_cast<const char*>(data), size);
    Json json = llm::engine::parse_bounded_json(body);
    if (!json.is_object()) {
        return 0;
    }
    json["model"] = "sim";
    llm::engine::HttpRequest http;
    http.body = json.dump();
    try {
        check_answer(parse_response(http, model(), 1), body);
    } catch (const llm::engine::ApiError& error) {
        check(!error.message.empty() && !error.param.starts_with("response_format.") &&
              !error.param.starts_with("messages["));
    }
    return 0;
}
