#include "engine_worker/scheduler/step_cost.hpp"

#include <algorithm>
#include <cmath>

namespace llm::engine {
namespace {

constexpr double kMemory = 0.98;  // weight of all earlier steps against the newest: a horizon of 50 steps
constexpr double kRidge = 1e-4;

}  // namespace

// Scaled so that every term is about 1 at a common load; the ridge then weighs on all alike.
std::array<double, StepCost::kTerms> StepCost::features(const Load& load) {
    return {1.0, load.decodes / 16.0, static_cast<double>(load.context_tokens) / 4096.0,
            load.prefill_tokens / 64.0};
}

void StepCost::observe(const Load& load, double ms) {
    const auto x = features(load);
    for (int i = 0; i < kTerms; ++i) {
        for (int j = 0; j < kTerms; ++j) {
            sums_[i][j] = kMemory * sums_[i][j] + x[i] * x[j];
        }
        target_[i] = kMemory * target_[i] + x[i] * ms;
    }
    saw_prefill_ = saw_prefill_ || load.prefill_tokens > 0;
    solve();
}

// Gaussian elimination; a term that comes out negative (noise: more work never takes less time) is struck out
// and the rest solved again.
void StepCost::solve() {
    std::array<bool, kTerms> off{};
    for (int round = 0; round < kTerms; ++round) {
        std::array<std::array<double, kTerms + 1>, kTerms> m{};
        for (int i = 0; i < kTerms; ++i) {
            for (int j = 0; j < kTerms; ++j) {
                m[i][j] = off[i] || off[j] ? 0.0 : sums_[i][j];
            }
            m[i][i] = off[i] ? 1.0 : m[i][i] + kRidge;
            m[i][kTerms] = off[i] ? 0.0 : target_[i];
        }
        for (int p = 0; p < kTerms; ++p) {  // symmetric and positive definite: no pivoting needed
            for (int i = p + 1; i < kTerms; ++i) {
                const double f = m[i][p] / m[p][p];
                for (int j = p; j <= kTerms; ++j) {
                    m[i][j] -= f * m[p][j];
                }
            }
        }
        bool negative = false;
        for (int i = kTerms - 1; i >= 0; --i) {
            double v = m[i][kTerms];
            for (int j = i + 1; j < kTerms; ++j) {
                v -= m[i][j] * coefficient_[j];
            }
            coefficient_[i] = v / m[i][i];
        }
        for (int i = 0; i < kTerms; ++i) {
            if (!(coefficient_[i] >= 0)) {
                off[i] = true;
                coefficient_[i] = 0;
                negative = true;
            }
        }
        if (!negative) {
            return;
        }
    }
}

double StepCost::predict(const Load& load) const {
    const auto x = features(load);
    double ms = 0;
    for (int i = 0; i < kTerms; ++i) {
        ms += coefficient_[i] * x[i];
    }
    return ms;
}

int32_t StepCost::prefill_room(const Load& load, double ms, int32_t unknown) const {
    if (!saw_prefill_) {
        return unknown;
    }
    const double left = ms - predict({load.decodes, load.context_tokens, 0});
    const double each = coefficient_[3] / 64.0;
    if (left <= 0) {
        return 0;
    }
    return each <= 0 ? 1 << 20 : static_cast<int32_t>(std::min(left / each, 1048576.0));
}

}  // namespace llm::engine
