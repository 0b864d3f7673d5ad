// The CUDA backend. Most callers need only what loader.hpp offers; tests and benchmarks look inside.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "engine_worker/backend/backend.hpp"
#include "engine_worker/backend/cuda/forward.hpp"
#include "engine_worker/backend/cuda/runtime.hpp"
#include "engine_worker/backend/cuda/step_buffers.hpp"
#include "engine_worker/backend/cuda/weights.hpp"

namespace llm::engine::cuda {

struct CudaOptions {
    bool graphs = true;          // replay recorded launches for steps that only decode
    bool tune = true;            // choose matrix-product algorithms by timing
    bool overlap = true;         // launches begin while the one before ends, where the GPU can do that
    std::string algorithm_file;  // where those are kept; empty = default_algorithm_file()
};

// launch() puts a step into the GPU's queue and returns; wait() blocks until its tokens are on the host. Two steps may be
// under way, the second with tokens that the first samples. All device memory is taken by the constructor, but that of
// graphs, without which steps also run.
class CudaBackend : public Backend {
  public:
    // Throws std::runtime_error with one sentence.
    explicit CudaBackend(const BackendOptions& options, const CudaOptions& cuda = {});
    ~CudaBackend() override;

    const BackendInfo& info() const override { return info_; }
    void launch(const Step& step) override;
    void wait(StepResult& result) override;

    const GpuModel& model() const { return model_; }
    const DeviceInfo& device() const { return device_; }
    size_t graphs() const { return graphs_.size(); }
    // While somebody watches, steps are not replayed from graphs.
    void watch(Forward::StageWatch stage) { forward_->watch(std::move(stage)); }

  private:
    // A launched step, as far as the host has part in it until it has been waited for.
    struct Flight {
        PinnedMemory meta;     // what the GPU copies the step's metadata from
        PinnedMemory results;  // SampleOut [max_step_tokens]
        Event done;
        int rows = 0;  // of results
        std::vector<int> n_logprobs;
        std::vector<float> logits;
    };

    bool is_decode(const Step& step) const;
    void update_table(const Step& step);
    bool launch_graph(const Step& step);
    void launch_eager(const Step& step);
    StepView view(const Step& step, int rows, int n_tiles) const;
    void send(size_t begin, size_t end);

    DeviceInfo device_;
    CudaOptions options_;
    BackendInfo info_;
    Stream stream_;
    GpuModel model_;
    DeviceMemory table_;       // [max_step_seqs][max_context]
    DeviceMemory meta_device_;
    std::array<Flight, 2> flights_;
    Flight* current_ = nullptr;   // of the last launch
    Flight* previous_ = nullptr;  // of the one before
    int under_way_ = 0;           // launched and not waited for
    std::unique_ptr<Forward> forward_;
    std::unique_ptr<StepBuffers> buffers_;
    std::vector<PrefillTile> tiles_;
    std::vector<int> buckets_;
    std::map<std::pair<int, int>, std::unique_ptr<Graph>> graphs_;  // by bucket and splits
    bool more_graphs_ = true;  // until one cannot be made, for want of memory above all
};

}  // namespace llm::engine::cuda
