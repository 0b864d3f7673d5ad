#include "shared/prometheus.hpp"

#include <gtest/gtest.h>
#include <limits>

namespace llm {
namespace {

TEST(Prometheus, FamilyAndSamples) {
    PrometheusText out;
    out.family("x_total", "counter", "Things.");
    out.sample("x_total", {{"model", "a\"b\\c\nd"}, {"kind", "k"}}, uint64_t{18446744073709551615u});
    out.sample("y", {}, 0.25);
    out.sample("z", {}, std::numeric_limits<double>::infinity());
    EXPECT_EQ(out.text(),
              "# HELP x_total Things.\n# TYPE x_total counter\n"
              "x_total{model=\"a\\\"b\\\\c\\nd\",kind=\"k\"} 18446744073709551615\n"
              "y 0.25\nz +Inf\n");
}

TEST(Prometheus, HistogramIsCumulative) {
    PrometheusText out;
    const double bounds[] = {0.5, 1};
    const uint64_t counts[] = {1, 0, 2};
    out.histogram("h", {{"m", "a"}}, bounds, 2, counts, 7.5);
    EXPECT_EQ(out.text(),
              "h_bucket{m=\"a\",le=\"0.5\"} 1\nh_bucket{m=\"a\",le=\"1\"} 1\nh_bucket{m=\"a\",le=\"+Inf\"} 3\n"
              "h_sum{m=\"a\"} 7.5\nh_count{m=\"a\"} 3\n");
}

TEST(Prometheus, HistogramWithoutLabels) {
    PrometheusText out;
    const double bounds[] = {1};
    const uint64_t counts[] = {0, 0};
    out.histogram("h", {}, bounds, 1, counts, 0);
    EXPECT_EQ(out.text(), "h_bucket{le=\"1\"} 0\nh_bucket{le=\"+Inf\"} 0\nh_sum 0\nh_count 0\n");
}

}  // namespace
}  // namespace llm
