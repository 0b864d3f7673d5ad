// The OpenAI API: routes, requests under way, and the life of the engine as clients see it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine_worker/scheduler/engine_thread.hpp"
#include "engine_worker/server/answer.hpp"
#include "engine_worker/server/api_error.hpp"
#include "engine_worker/server/api_keys.hpp"
#include "engine_worker/server/api_request.hpp"
#include "engine_worker/server/background.hpp"
#include "engine_worker/server/http_server.hpp"
#include "engine_worker/server/served_model.hpp"
#include "engine_worker/server/wakeup.hpp"
#include "shared/engine_report.hpp"

namespace llm::engine {

struct ServiceOptions {
    std::vector<std::string> model_names;  // known before the model is loaded
    int32_t max_waiting = 256;             // sequences in line before new requests are refused with 429
    double drain_grace = 0;                // seconds after drain() for which new requests are still taken
    double drain_timeout = 120;            // seconds that drain(true) waits for running requests
    ApiKeys api_keys;                      // of which all but probes must bring one
};

// All functions belong to the server's thread, except those marked.
class ApiService : public HttpHandler {
  public:
    ApiService(const ServiceOptions& options, std::function<double()> clock);

    // Connects the service to its server; before run().
    void bind(HttpServer& server);

    // Any thread: the model is there, serve it. Both must outlive the service.
    void start(const ServedModel& model, EngineThread& engine);
    // Any thread: the engine has events, or failed.
    void wake() const { wakeup_.notify(); }
    // Any thread.
    EngineState state() const { return state_.load(); }
    void on_state_change(std::function<void()> callback) { state_changed_ = std::move(callback); }

    // Any thread: reports and answers say from now on that the engine has failed.
    void fail();

    // Reports draining, and takes nothing new once drain_grace is over: a gateway's requests cross the report
    // on its way. With `then_stop`, stops the server when everything under way is answered, or after
    // drain_timeout; a second call stops at once.
    void drain(bool then_stop);

    // After run(): nothing of start()'s is used any more.
    void detach() { background_.reset(); }

    void on_request(ConnectionId connection, HttpRequest request) override;
    void on_gone(ConnectionId connection) override;
    void on_writable(ConnectionId connection) override;
    HttpReply refusal(int status, const std::string& reason) override;

  private:
    struct Exchange {
        uint64_t request = 0;
        std::unique_ptr<Answer> answer;
        std::string request_id;  // x-request-id of the client
        bool head_sent = false;
        bool listed = false;  // in touched_
    };

    void on_wake();
    void on_second();
    void set_state(EngineState state);
    HttpReply route(ConnectionId connection, HttpRequest& request, bool& later);
    void answer(ConnectionId connection, const HttpRequest& request, HttpReply reply);
    HttpReply list_models() const;
    HttpReply one_model(const std::string& name) const;
    static HttpReply tokenize(const HttpRequest& request, const ServedModel& model);
    static HttpReply detokenize(const HttpRequest& request, const ServedModel& model);
    HttpReply health(bool ready) const;
    HttpReply drain_reply();
    void require_ready() const;
    // What a request with a prompt or tokens becomes: one for the engine, or the answer.
    struct Read {
        std::optional<GenerationCall> call;
        HttpReply reply;
    };
    static Read read(const HttpRequest& http, const ServedModel& model, uint64_t seed) noexcept;
    void read_in_background(ConnectionId connection, HttpRequest http);
    void proceed(ConnectionId connection, const HttpRequest& http, Read read);
    void generate(ConnectionId connection, const HttpRequest& http, GenerationCall call);
    int64_t& open_of(const Exchange& exchange) {
        return exchange.answer->shape().embeddings ? open_inputs_ : open_choices_;
    }
    size_t n_open() const { return exchanges_.size() + reading_.size(); }  // requests being answered
    void deliver(Event&& event);
    void send(ConnectionId connection, Exchange& exchange);
    void fail(ConnectionId connection, Exchange& exchange, const std::string& why);
    void stop_when_done();

    ServiceOptions options_;
    std::function<double()> clock_;
    HttpServer* server_ = nullptr;
    const ServedModel* model_ = nullptr;
    EngineThread* engine_ = nullptr;
    Wakeup wakeup_;
    std::mutex start_mutex_;
    const ServedModel* starting_model_ = nullptr;
    EngineThread* starting_engine_ = nullptr;
    std::atomic<EngineState> state_{EngineState::loading};
    std::function<void()> state_changed_;
    std::unordered_map<ConnectionId, Exchange> exchanges_;
    std::unordered_map<uint64_t, ConnectionId> connection_of_;  // by request
    std::vector<ConnectionId> touched_;
    std::unique_ptr<Background> background_;      // from start() on
    // Whose requests it reads, or will; true: the client has left.
    std::unordered_map<ConnectionId, std::shared_ptr<std::atomic<bool>>> reading_;
    uint64_t next_request_ = 1;
    int64_t open_choices_ = 0;  // of all exchanges: running or in line
    int64_t open_inputs_ = 0;   // the same of those that embed
    std::mt19937_64 random_{std::random_device{}()};
    bool stopping_ = false;
    double stop_at_ = 0;
    double refuse_at_ = 0;  // while draining: when nothing new is taken any more
};

}  // namespace llm::engine
