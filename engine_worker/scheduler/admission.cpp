#include "engine_worker/scheduler/admission.hpp"

#include <algorithm>

namespace llm::engine {

int64_t peak_slots(std::vector<Footprint>& all) {
    std::sort(all.begin(), all.end(), [](const Footprint& a, const Footprint& b) { return a.left > b.left; });
    int64_t used = 0;
    int64_t peak = 0;
    for (size_t i = 0; i < all.size(); ++i) {
        used += all[i].used;
        peak = std::max(peak, used + all[i].left * static_cast<int64_t>(i + 1));
    }
    return peak;
}

void OutputLengths::record(int32_t n_tokens) {
    recent_[n_++ % recent_.size()] = n_tokens;
    const size_t n = std::min<size_t>(n_, recent_.size());
    auto sorted = recent_;
    const size_t at = n * 9 / 10;
    std::nth_element(sorted.begin(), sorted.begin() + at, sorted.begin() + n);
    p90_ = sorted[at];
}

int32_t OutputLengths::remaining(int32_t so_far, int32_t limit) const {
    const int32_t left = limit - so_far;
    if (n_ < kEnough) {
        return std::min(left, std::max(kUsual - so_far, so_far));
    }
    return std::min(left, std::max(p90_ - so_far, kStep));
}

}  // namespace llm::engine
