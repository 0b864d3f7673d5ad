#include "engine_worker/backend/cpu/profile.hpp"

#include <cstdio>

namespace llm::engine {

std::string Profile::table(double floor) const {
    static constexpr const char* kNames[] = {"embed", "norm",    "qkv",  "rope",    "attention",
                                             "out",   "gate_up", "down", "lm_head", "sample"};
    static_assert(std::size(kNames) == static_cast<size_t>(Op::kCount));
    double seconds = 0;
    uint64_t bytes = 0;
    for (const OpTotal& op : ops) {
        seconds += op.seconds;
        bytes += op.bytes;
    }
    std::string text = "op            calls         ms    share     GB/s  of floor\n";
    const auto line = [&](const char* name, uint64_t calls, double time, uint64_t moved) {
        char buffer[128];
        const double rate = time > 0 ? static_cast<double>(moved) / time : 0;
        std::snprintf(buffer, sizeof(buffer), "%-10s %8llu %10.2f %7.1f%%", name,
                      static_cast<unsigned long long>(calls), time * 1e3,
                      seconds > 0 ? 100 * time / seconds : 0);
        text += buffer;
        if (moved > 0) {
            std::snprintf(buffer, sizeof(buffer), " %8.2f", rate / 1e9);
            text += buffer;
            if (floor > 0) {
                std::snprintf(buffer, sizeof(buffer), " %8.1f%%", 100 * rate / floor);
                text += buffer;
            }
        }
        text += "\n";
    };
    for (size_t i = 0; i < ops.size(); i++) {
        line(kNames[i], ops[i].calls, ops[i].seconds, ops[i].bytes);
    }
    line("total", 0, seconds, bytes);
    return text;
}

}  // namespace llm::engine
