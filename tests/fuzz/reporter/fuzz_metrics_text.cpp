// What parse_metrics_text() takes, written down again in the format's own words, is read as the same samples.
#include "engine_worker/reporter/metrics_text.hpp"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using llm::reporter::Sample;

std::string written(const Sample& sample) {
    std::string line = sample.name + "{";
    for (const auto& [name, value] : sample.labels) {
        line += name + "=\"";
        for (const char c : value) {
            line += c == '\n' ? "\\n" : c == '\\' || c == '"' ? std::string{'\\', c} : std::string(1, c);
        }
        line += "\",";
    }
    if (std::isnan(sample.value)) {
        return line + "} NaN\n";
    }
    if (std::isinf(sample.value)) {
        return line + (sample.value < 0 ? "} -Inf\n" : "} +Inf\n");
    }
    char digits[64];
    return line + "} " +
           std::string(digits, std::to_chars(digits, digits + sizeof digits, sample.value).ptr) + "\n";
}

bool same(const Sample& a, const Sample& b) {
    return a.name == b.name && a.labels == b.labels &&
           (a.value == b.value || (std::isnan(a.value) && std::isnan(b.value)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    std::vector<Sample> samples;
    const std::string text(reinterpret_cast<const char*>(data), size);
    if (!llm::reporter::parse_metrics_text(text, samples).empty() || samples.empty()) {
        return 0;
    }
    std::string again;
    for (const Sample& sample : samples) {
        again += written(sample);
    }
    std::vector<Sample> read;
    if (!llm::reporter::parse_metrics_text(again, read).empty() || read.size() != samples.size()) {
        std::abort();
    }
    for (size_t i = 0; i < read.size(); ++i) {
        if (!same(samples[i], read[i])) {
            std::abort();
        }
    }
    return 0;
}
