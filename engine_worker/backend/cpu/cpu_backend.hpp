// The CPU backend. Most callers need only make_cpu_backend() of backend.hpp; benchmarks and tests look
// inside.
#pragma once

#include <memory>

#include "engine_worker/backend/backend.hpp"
#include "engine_worker/backend/cpu/forward.hpp"
#include "engine_worker/backend/cpu/sampler.hpp"

namespace llm::engine {

// Computes in launch(); wait() only hands over. The result of a sequence is the same to the last bit whatever
// else is in the batch, however its prompt is cut into steps, and on any number of threads (kernels.hpp says
// how).
class CpuBackend : public Backend {
  public:
    // `kernels` as in choose_kernels(). Throws std::runtime_error with one sentence.
    explicit CpuBackend(const BackendOptions& options, const char* kernels = "auto");

    const BackendInfo& info() const override { return info_; }
    // Throws std::invalid_argument when the step breaks the limits of info(): a fault of the caller.
    void launch(const Step& step) override;
    void wait(StepResult& result) override;

    Profile& profile() { return profile_; }
    const CpuModel& model() const { return model_; }
    const Kernels& kernels() const { return kernels_; }
    ThreadPool& pool() { return pool_; }

  private:
    void check(const Step& step) const;

    const Kernels& kernels_;
    ThreadPool pool_;
    CpuModel model_;
    BackendInfo info_;
    std::unique_ptr<Forward> forward_;
    std::vector<Sampler> samplers_;  // per worker
    Profile profile_;
    StepResult result_;
};

}  // namespace llm::engine
