#include "engine_worker/server/metrics.hpp"

#include "shared/prometheus.hpp"

namespace llm::engine {
namespace {

// Metrics of one model under vLLM's prefix.
class Writer {
  public:
    explicit Writer(const std::string& model) : model_(model) {}

    void family(const std::string& name, std::string_view type, std::string_view help) {
        text_.family("vllm:" + name, type, help);
    }
    template <class Number>
    void one(const std::string& name, std::string_view type, std::string_view help, Number value) {
        family(name, type, help);
        text_.sample("vllm:" + name, {{"model_name", model_}}, value);
    }
    void finished(std::string_view reason, uint64_t count) {
        text_.sample("vllm:request_success_total", {{"model_name", model_}, {"finished_reason", reason}},
                     count);
    }
    void histogram(const std::string& name, std::string_view help, const Histogram& histogram) {
        family(name, "histogram", help);
        text_.histogram("vllm:" + name, {{"model_name", model_}}, kLatencyBounds.data(),
                        kLatencyBounds.size(), histogram.count.data(), histogram.sum);
    }
    std::string take() { return text_.take(); }

  private:
    const std::string& model_;
    PrometheusText text_;
};

}  // namespace

std::string metrics_text(const EngineStats& s, const std::string& model) {
    Writer w(model);
    w.one("num_requests_running", "gauge", "Sequences that hold a seat.", uint64_t{s.running});
    w.one("num_requests_waiting", "gauge", "Sequences in line.", uint64_t{s.waiting});
    w.one("kv_cache_usage_perc", "gauge", "KV blocks in use, 0 to 1; cached ones do not count.", s.kv_usage);
    w.one("prefix_cache_queries_total", "counter", "Prompt tokens looked up in the prefix cache.",
          s.prefix_queries);
    w.one("prefix_cache_hits_total", "counter", "Prompt tokens found in the prefix cache.", s.prefix_hits);
    w.one("num_preemptions_total", "counter", "Sequences that had to make room.", s.preemptions);
    w.one("prompt_tokens_total", "counter", "Prompt tokens.", s.tokens_in);
    w.one("generation_tokens_total", "counter", "Completion tokens.", s.tokens_out);
    w.family("request_success_total", "counter", "Sequences that ended, by reason.");
    w.finished("stop", s.finished_stop);
    w.finished("length", s.finished_length);
    w.one("requests_cancelled_total", "counter", "Requests whose client went away.", s.cancelled);
    w.one("engine_steps_total", "counter", "Forward steps.", s.steps);
    w.one("engine_busy_seconds_total", "counter", "Seconds spent in forward steps.", s.busy_seconds);
    w.histogram("time_to_first_token_seconds", "From arrival to the first token.", s.time_to_first_token);
    w.histogram("inter_token_latency_seconds", "Between two tokens of a sequence.", s.inter_token);
    w.histogram("e2e_request_latency_seconds", "From arrival to the end of the last choice.",
                s.request_duration);
    w.histogram("request_queue_time_seconds", "From arrival to the first seat.", s.queue_time);
    return w.take();
}

}  // namespace llm::engine
