#include "engine_worker/server/api_service.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <utility>

#include "engine_worker/server/api_response.hpp"
#include "engine_worker/server/api_routes.hpp"
#include "engine_worker/server/metrics.hpp"
#include "engine_worker/server/responses_answer.hpp"
#include "engine_worker/server/responses_request.hpp"

namespace llm::engine {
namespace {

constexpr size_t kLargeBody = 64 * 1024;  // bytes; up to there a request is read within a millisecond or so

ApiError not_ready(const std::string& code, const std::string& message, int retry_after) {
    ApiError error(503, "server_error", code, message);
    error.retry_after = retry_after;
    return error;
}

HttpReply reply_to(const std::exception& error) {
    const auto* api = dynamic_cast<const ApiError*>(&error);
    return error_reply(api != nullptr ? *api : ApiError(500, "server_error", "internal_error", error.what()));
}

HttpReply json_reply(const Json& body) {
    HttpReply reply;
    reply.body = body.dump(-1, ' ', false, Json::error_handler_t::replace);
    return reply;
}

std::string hex_id(std::string_view prefix, uint64_t high, uint64_t low) {
    std::array<char, 33> digits;
    std::snprintf(digits.data(), digits.size(), "%016llx%016llx", static_cast<unsigned long long>(high),
                  static_cast<unsigned long long>(low));
    return std::string(prefix) + digits.data();
}

std::string_view id_prefix(std::string_view path) {
    return path == kChat         ? "chatcmpl-"
           : path == kResponses  ? "resp_"
           : path == kEmbeddings ? "embd-"
                                 : "cmpl-";
}

std::unique_ptr<Answer> make_answer(AnswerShape shape, const Request& request, std::string id,
                                    const Tokenizer& tokenizer) {
    const std::time_t now = std::time(nullptr);
    if (!shape.response.empty()) {
        return std::make_unique<ResponsesAnswer>(std::move(shape), request, std::move(id), now, tokenizer);
    }
    return std::make_unique<CompletionAnswer>(std::move(shape), request, std::move(id), now, tokenizer);
}

}  // namespace

ApiService::ApiService(const ServiceOptions& options, std::function<double()> clock)
    : options_(options), clock_(std::move(clock)) {}

void ApiService::bind(HttpServer& server) {
    server_ = &server;
    server.watch(wakeup_.fd(), [this] { on_wake(); });
    server.every_second([this] { on_second(); });
}

// ---- life -------------------------------------------------------------------------------------------------

void ApiService::set_state(EngineState state) {
    state_.store(state);
    if (state_changed_) {
        state_changed_();
    }
}

void ApiService::start(const ServedModel& model, EngineThread& engine) {
    {
        const std::lock_guard lock(start_mutex_);
        starting_model_ = &model;
        starting_engine_ = &engine;
    }
    wakeup_.notify();
}

void ApiService::drain(bool then_stop) {
    if (stopping_ && then_stop) {
        return server_->stop();
    }
    const EngineState state = state_.load();
    if (state == EngineState::ready) {
        refuse_at_ = clock_() + options_.drain_grace;
    }
    if (state != EngineState::failed) {
        set_state(EngineState::draining);
    }
    if (then_stop) {
        stopping_ = true;
        stop_at_ = clock_() + options_.drain_timeout;
        stop_when_done();
    }
}

void ApiService::stop_when_done() {
    const double now = clock_();
    if (stopping_ && (now >= stop_at_ || (now >= refuse_at_ && n_open() == 0 && server_->all_sent()))) {
        server_->stop();
    }
}

void ApiService::on_second() {
    stop_when_done();
}

void ApiService::on_wake() {
    wakeup_.clear();
    if (engine_ == nullptr) {
        const std::lock_guard lock(start_mutex_);
        if (starting_engine_ == nullptr) {
            return;
        }
        model_ = starting_model_;
        engine_ = starting_engine_;
        background_ = std::make_unique<Background>([this] { wakeup_.notify(); });
        if (state_.load() == EngineState::loading) {
            set_state(EngineState::ready);
        }
        return;
    }
    for (Event& event : engine_->take_events()) {
        deliver(std::move(event));
    }
    for (const Background::Done& done : background_->take_done()) {
        done();
    }
    // One chunk per choice and turn, however many tokens the engine was ahead.
    for (const ConnectionId connection : std::exchange(touched_, {})) {
        const auto found = exchanges_.find(connection);
        if (found != exchanges_.end()) {
            found->second.listed = false;
            send(connection, found->second);
        }
    }
    if (state_.load() != EngineState::failed && !engine_->failure().empty()) {
        // Every request has ended with an error. What is broken (a lost GPU) is mended by a new process only.
        fail();
        drain(true);
    }
    stop_when_done();
}

void ApiService::fail() {
    set_state(EngineState::failed);
}

// ---- routes -----------------------------------------------------------------------------------------------

void ApiService::on_request(ConnectionId connection, HttpRequest request) {
    HttpReply reply;
    bool later = false;
    try {
        reply = route(connection, request, later);
    } catch (const std::exception& error) {
        reply = reply_to(error);
    }
    if (!later) {
        answer(connection, request, std::move(reply));
    }
}

void ApiService::answer(ConnectionId connection, const HttpRequest& request, HttpReply reply) {
    if (const std::string_view id = request.header("x-request-id"); !id.empty()) {
        reply.headers.emplace_back("x-request-id", id);
    }
    server_->reply(connection, reply);
}

HttpReply ApiService::route(ConnectionId connection, HttpRequest& request, bool& later) {
    HttpReply reply;
    if (answered_by_routes(request, reply)) {
        return reply;
    }
    const std::string& path = request.path;
    if (!is_probe(path) && !options_.api_keys.admits(request.header("authorization"))) {
        // The first words are OpenAI's: client libraries look for them.
        ApiError error(401, "invalid_request_error", "invalid_api_key",
                       "Incorrect API key provided, or none: send 'Authorization: Bearer KEY' with a key that this "
                       "engine knows.");
        error.authenticate = true;
        throw error;
    }
    if (path == kModels) {
        return list_models();
    }
    if (path.starts_with("/v1/models/")) {
        return one_model(path.substr(kModels.size() + 1));
    }
    if (path.starts_with(kOneResponse)) {
        throw ApiError(404, "invalid_request_error", "response_not_found",
                       "This engine keeps no responses: what an earlier one said belongs into the 'input' of the next.");
    }
    if (path == "/health" || path == "/ping" || path == "/ready") {
        return health(path == "/ready");
    }
    if (path == "/metrics") {
        reply = text_reply(200, metrics_text(engine_ == nullptr ? EngineStats() : engine_->stats(),
                                             options_.model_names.front()));
        reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
        return reply;
    }
    if (path == "/version") {
        return json_reply({{"version", LLM_VERSION}});
    }
    if (path == "/load") {
        return json_reply({{"server_load", n_open()}});
    }
    if (path == "/drain") {
        return drain_reply();
    }
    require_ready();
    later = true;
    if (request.body.size() > kLargeBody) {
        read_in_background(connection, std::move(request));
    } else {
        proceed(connection, request, read(request, *model_, random_()));
    }
    return {};
}

HttpReply ApiService::refusal(int status, const std::string& reason) {
    const char* code = status == 413 ? "body_too_large" : status == 408 ? "request_timeout" : "bad_request";
    return error_reply(ApiError(status, "invalid_request_error", code, "Bad HTTP request: " + reason + "."));
}

void ApiService::require_ready() const {
    switch (state_.load()) {
        case EngineState::ready:
            return;
        case EngineState::loading:
            throw not_ready("loading", "The model is still being loaded.", 5);
        case EngineState::draining:
            if (clock_() < refuse_at_) {
                return;
            }
            [[fallthrough]];
        case EngineState::gone:
            throw not_ready("draining", "This engine is shutting down.", 1);
        case EngineState::failed:
            break;
    }
    throw not_ready("engine_failed", "The engine has failed: " + (engine_ ? engine_->failure() : ""), 60);
}

HttpReply ApiService::list_models() const {
    Json list = Json::array();
    for (const std::string& name : options_.model_names) {
        list.push_back(Json::parse(one_model(name).body));
    }
    return json_reply({{"object", "list"}, {"data", list}});
}

HttpReply ApiService::one_model(const std::string& name) const {
    const auto& names = options_.model_names;
    if (std::find(names.begin(), names.end(), name) == names.end()) {
        throw ApiError(404, "invalid_request_error", "model_not_found",
                       "The model '" + name + "' does not exist.", "model");
    }
    Json model = {{"id", name}, {"object", "model"}, {"created", 0}, {"owned_by", "llm-engine"}};
    if (model_ != nullptr) {
        model["created"] = model_->created;
        model["max_model_len"] = model_->max_context;
    }
    return json_reply(model);
}

HttpReply ApiService::tokenize(const HttpRequest& request, const ServedModel& model) {
    const Json body = parse_body(request);
    const auto ids = parse_tokenize(body, model);
    Json reply = {{"count", ids.size()}, {"max_model_len", model.max_context}, {"tokens", ids}};
    if (Params(body).boolean("return_token_strs").value_or(false)) {
        Json& strings = reply["token_strs"] = Json::array();
        for (const int32_t id : ids) {
            strings.push_back(model.tokenizer->id_to_token(id));
        }
    }
    return json_reply(reply);
}

HttpReply ApiService::detokenize(const HttpRequest& request, const ServedModel& model) {
    const Json body = parse_body(request);
    const Params params(body);
    if (params.find("model") != nullptr) {
        checked_model(params, model);
    }
    const Json* tokens = params.find("tokens");
    if (tokens == nullptr || !tokens->is_array()) {
        throw bad_value("tokens", "You must provide 'tokens', an array of token ids.");
    }
    std::vector<int32_t> ids;
    for (const Json& id : *tokens) {
        if (!is_token_id(id, model.tokenizer->vocab_size())) {
            throw bad_value("tokens", "'tokens' holds something that is not a token id; " +
                                          token_range(model.tokenizer->vocab_size()));
        }
        ids.push_back(id.get<int32_t>());
    }
    return json_reply({{"prompt", model.tokenizer->decode(ids, false)}});
}

HttpReply ApiService::health(bool ready) const {
    const EngineState state = state_.load();
    const bool ok = ready ? state == EngineState::ready : state != EngineState::failed;
    return text_reply(ok ? 200 : 503, std::string(to_string(state)) + "\n");
}

HttpReply ApiService::drain_reply() {
    drain(false);
    return json_reply({{"state", to_string(state_.load())}, {"open_requests", n_open()}});
}

// ---- generation -------------------------------------------------------------------------------------------

ApiService::Read ApiService::read(const HttpRequest& http, const ServedModel& model, uint64_t seed) noexcept {
    Read out;
    try {
        if (http.path == kTokenize) {
            out.reply = tokenize(http, model);
        } else if (http.path == kDetokenize) {
            out.reply = detokenize(http, model);
        } else {
            out.call = http.path == kEmbeddings ? parse_embeddings(http, model)
                       : http.path == kChat      ? parse_chat(http, parse_body(http), model, seed)
                       : http.path == kResponses ? parse_response(http, model, seed)
                                                 : parse_completion(http, model, seed);
        }
    } catch (const std::exception& error) {
        out.reply = reply_to(error);
    }
    return out;
}

// Megabytes take their time to be parsed and cut into tokens; everybody's text would stand still.
void ApiService::read_in_background(ConnectionId connection, HttpRequest http) {
    const auto left = reading_.emplace(connection, std::make_shared<std::atomic<bool>>(false)).first->second;
    if (http.path == kTokenize || http.path == kDetokenize) {
        server_->owe(connection);
    }
    const auto request = std::make_shared<const HttpRequest>(std::move(http));
    background_->post([this, connection, request, left, seed = random_(), &model = *model_]() -> Background::Done {
        if (*left) {
            return [] {};
        }
        const auto result = std::make_shared<Read>(read(*request, model, seed));
        return [this, connection, request, result] {
            if (reading_.erase(connection) != 0) {  // else the client has left meanwhile
                proceed(connection, *request, std::move(*result));
            }
        };
    });
}

void ApiService::proceed(ConnectionId connection, const HttpRequest& http, Read read) {
    try {
        if (read.call) {
            return generate(connection, http, std::move(*read.call));
        }
    } catch (const std::exception& error) {
        read.reply = reply_to(error);
    }
    answer(connection, http, std::move(read.reply));
}

void ApiService::generate(ConnectionId connection, const HttpRequest& http, GenerationCall call) {
    if (state_.load() == EngineState::failed) {
        require_ready();  // while the request was read
    }
    const bool embed = http.path == kEmbeddings;
    const auto choices = static_cast<int64_t>(call.request.prompts.size()) * call.request.n;
    const int64_t room = static_cast<int64_t>(options_.max_waiting) + model_->max_running;
    if (!embed && choices > room) {  // no later time would be better
        throw bad_value("n", "The request asks for " + std::to_string(choices) +
                                 " choices; this engine takes at most " + std::to_string(room) + " at once.");
    }
    // Inputs to embed come by the thousand and take a step each: a request of them counts as one, and those that wait
    // keep out nothing but more of them.
    if (open_choices_ + (embed ? open_inputs_ + 1 : choices) > room) {
        ApiError error(429, "rate_limit_error", "queue_full", "The engine's queue is full; try again later.");
        error.retry_after = 1;
        throw error;
    }
    call.request.id = next_request_++;
    std::string id = hex_id(id_prefix(http.path), random_(), random_());
    Exchange exchange{call.request.id,
                      make_answer(std::move(call.shape), call.request, std::move(id), *model_->tokenizer),
                      std::string(http.header("x-request-id"))};
    open_of(exchange) += choices;
    connection_of_.emplace(call.request.id, connection);
    exchanges_.emplace(connection, std::move(exchange));
    engine_->submit(std::move(call.request));
}

void ApiService::deliver(Event&& event) {
    const auto at = connection_of_.find(event.request);
    if (at == connection_of_.end()) {
        return;  // cancelled meanwhile
    }
    const ConnectionId connection = at->second;
    Exchange& exchange = exchanges_.find(connection)->second;
    if (event.finish == FinishReason::failed) {
        return fail(connection, exchange, event.error);
    }
    open_of(exchange) -= event.finish != FinishReason::none ? 1 : 0;
    exchange.answer->take(std::move(event));
    if (!exchange.listed) {
        exchange.listed = true;
        touched_.push_back(connection);
    }
}

void ApiService::send(ConnectionId connection, Exchange& exchange) {
    Answer& answer = *exchange.answer;
    const bool stream = answer.shape().stream;
    if ((stream && server_->unsent(connection) > HttpServer::kHighWater) || (!stream && !answer.complete())) {
        return;  // the client is slow: on_writable() goes on; or the answer is not whole yet
    }
    HttpReply reply;
    if (!exchange.request_id.empty()) {
        reply.headers.emplace_back("x-request-id", exchange.request_id);
    }
    if (!stream) {
        reply.body = answer.json();
        server_->reply(connection, reply);
    } else {
        if (!std::exchange(exchange.head_sent, true)) {
            reply.content_type = "text/event-stream; charset=utf-8";
            reply.headers.emplace_back("cache-control", "no-cache");
            server_->begin_stream(connection, reply);
        }
        std::string events;
        answer.drain(events);
        server_->write(connection, events);
        if (!answer.complete()) {
            return;
        }
        server_->end_stream(connection);
    }
    connection_of_.erase(exchange.request);
    exchanges_.erase(connection);
}

void ApiService::fail(ConnectionId connection, Exchange& exchange, const std::string& why) {
    const bool engine_lost = !engine_->failure().empty();
    const ApiError error(500, "server_error", engine_lost ? "engine_failed" : "generation_failed",
                         engine_lost ? "The engine has failed: " + why : why);
    if (exchange.head_sent) {
        std::string events;
        exchange.answer->drain(events);
        exchange.answer->fail(error, events);
        server_->write(connection, events);
        server_->abort(connection);
    } else {
        server_->reply(connection, error_reply(error));
    }
    open_of(exchange) -= exchange.answer->open();
    connection_of_.erase(exchange.request);
    exchanges_.erase(connection);
}

void ApiService::on_gone(ConnectionId connection) {
    if (const auto reading = reading_.find(connection); reading != reading_.end()) {
        *reading->second = true;
        reading_.erase(reading);
        return stop_when_done();
    }
    const auto found = exchanges_.find(connection);
    if (found == exchanges_.end()) {
        return;
    }
    if (!found->second.answer->complete()) {
        engine_->cancel(found->second.request);
        open_of(found->second) -= found->second.answer->open();
    }
    connection_of_.erase(found->second.request);
    exchanges_.erase(found);
    stop_when_done();
}

void ApiService::on_writable(ConnectionId connection) {
    const auto found = exchanges_.find(connection);
    if (found != exchanges_.end()) {
        send(connection, found->second);
    }
}

}  // namespace llm::engine
