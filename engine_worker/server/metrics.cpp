#include "engine_worker/server/metrics.hpp"

#include <array>
#include <charconv>
#include <string_view>

namespace llm::engine {
namespace {

std::string number(double value) {
    std::array<char, 32> text;
    return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}

// A label value: backslash, quote and line feed are escaped.
std::string escaped(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == '\\' || c == '"') {
            out += '\\';
        }
        out += c == '\n' ? "\\n" : std::string(1, c);
    }
    return out;
}

class Writer {
  public:
    explicit Writer(const std::string& model) : labels_("model_name=\"" + escaped(model) + "\"") {}

    void family(std::string_view name, std::string_view type, std::string_view help) {
        text_ += "# HELP vllm:" + std::string(name) + " " + std::string(help) + "\n";
        text_ += "# TYPE vllm:" + std::string(name) + " " + std::string(type) + "\n";
    }
    void sample(std::string_view name, double value, const std::string& more = "") {
        text_ += "vllm:" + std::string(name) + "{" + labels_ + more + "} " + number(value) + "\n";
    }
    void one(std::string_view name, std::string_view type, std::string_view help, double value) {
        family(name, type, help);
        sample(name, value);
    }
    void histogram(const std::string& name, std::string_view help, const Histogram& histogram) {
        family(name, "histogram", help);
        uint64_t below = 0;
        for (size_t i = 0; i < histogram.count.size(); ++i) {
            below += histogram.count[i];
            const std::string bound = i < kLatencyBounds.size() ? number(kLatencyBounds[i]) : "+Inf";
            sample(name + "_bucket", static_cast<double>(below), ",le=\"" + bound + "\"");
        }
        sample(name + "_sum", histogram.sum);
        sample(name + "_count", static_cast<double>(below));
    }
    std::string take() { return std::move(text_); }

  private:
    std::string labels_;
    std::string text_;
};

}  // namespace

std::string metrics_text(const EngineStats& s, const std::string& model) {
    Writer w(model);
    const auto count = [](uint64_t n) { return static_cast<double>(n); };
    w.one("num_requests_running", "gauge", "Sequences that hold a seat.", s.running);
    w.one("num_requests_waiting", "gauge", "Sequences in line.", s.waiting);
    w.one("kv_cache_usage_perc", "gauge", "KV blocks in use, 0 to 1; cached ones do not count.", s.kv_usage);
    w.one("prefix_cache_queries_total", "counter", "Prompt tokens looked up in the prefix cache.",
          count(s.prefix_queries));
    w.one("prefix_cache_hits_total", "counter", "Prompt tokens found in the prefix cache.",
          count(s.prefix_hits));
    w.one("num_preemptions_total", "counter", "Sequences that had to make room.", count(s.preemptions));
    w.one("prompt_tokens_total", "counter", "Prompt tokens.", count(s.tokens_in));
    w.one("generation_tokens_total", "counter", "Completion tokens.", count(s.tokens_out));
    w.family("request_success_total", "counter", "Sequences that ended, by reason.");
    w.sample("request_success_total", count(s.finished_stop), ",finished_reason=\"stop\"");
    w.sample("request_success_total", count(s.finished_length), ",finished_reason=\"length\"");
    w.one("requests_cancelled_total", "counter", "Requests whose client went away.", count(s.cancelled));
    w.one("engine_steps_total", "counter", "Forward steps.", count(s.steps));
    w.one("engine_busy_seconds_total", "counter", "Seconds spent in forward steps.", s.busy_seconds);
    w.histogram("time_to_first_token_seconds", "From arrival to the first token.", s.time_to_first_token);
    w.histogram("inter_token_latency_seconds", "Between two tokens of a sequence.", s.inter_token);
    w.histogram("e2e_request_latency_seconds", "From arrival to the end of the last choice.",
                s.request_duration);
    w.histogram("request_queue_time_seconds", "From arrival to the first seat.", s.queue_time);
    return w.take();
}

}  // namespace llm::engine
