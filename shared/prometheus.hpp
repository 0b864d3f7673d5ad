// Writes metrics in Prometheus' text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace llm {

struct PrometheusLabel {
    std::string_view name;
    std::string_view value;  // escaped when written
};

// Appends to one growing buffer. Call family() once per metric, then its samples.
class PrometheusText {
  public:
    using Labels = std::initializer_list<PrometheusLabel>;

    // HELP and TYPE lines; `type` is counter, gauge or histogram.
    void family(std::string_view name, std::string_view type, std::string_view help);

    void sample(std::string_view name, Labels labels, double value);
    void sample(std::string_view name, Labels labels, uint64_t value);

    // One histogram: `counts` has `bounds` + 1 entries, not cumulative, the last for +Inf.
    void histogram(std::string_view name, Labels labels, const double* bound, size_t bounds,
                   const uint64_t* counts, double sum);

    const std::string& text() const { return text_; }
    std::string take() { return std::move(text_); }

  private:
    void open(std::string_view name, std::string_view suffix, Labels labels, std::string_view le);
    void append_escaped(std::string_view value);

    std::string text_;
};

}  // namespace llm
