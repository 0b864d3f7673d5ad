// The forward pass on the GPU: which kernels run in which order, and the memory that they work in.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine_worker/backend/cuda/gemm.hpp"
#include "engine_worker/backend/cuda/kernels/launch.hpp"
#include "engine_worker/backend/cuda/runtime.hpp"
#include "engine_worker/backend/cuda/weights.hpp"

namespace llm::engine::cuda {

struct ForwardLimits {
    int max_tokens = 0;      // rows of a step, padding included
    int max_sequences = 0;   // rows with logits at a time
    int multiprocessors = 0;
};

// Where a step's metadata is, in device memory.
struct StepView {
    const int* tokens = nullptr;
    const int* positions = nullptr;
    const int* slots = nullptr;
    const int* logit_rows = nullptr;
    const PrefillTile* tiles = nullptr;
    const int* table = nullptr;
    int table_stride = 0;
    const SampleRow* sampling = nullptr;
    int rows = 0;       // tokens, padding included
    int n_decode = 0;   // of them, the first so many belong to one sequence each
    int n_tiles = 0;
    int splits = 1;          // of the contexts of decodes
    int prefill_splits = 1;  // of prompts
    bool in_order = false;  // logit_rows names every row, in order
};

class Forward {
  public:
    // Bytes that the work space of a Forward will take.
    static size_t workspace_bytes(const GpuModel& shape, const ForwardLimits& limits);

    // `model` is borrowed. `kv_slots` includes the spare slot.
    Forward(const GpuModel& model, const ForwardLimits& limits, int64_t kv_slots, const Stream& stream,
            const std::string& device_name, const std::string& algorithm_file);

    // Each puts its kernels into the stream. head() and sample() take rows [first, first + count) of the step's logit
    // rows; their logits are then rows 0..count-1 of logits().
    void layers(const StepView& step);
    void head(const StepView& step, int first, int count);
    void sample(const StepView& step, int first, int count);

    // Times matrix products for these numbers of rows, so that graphs use the best algorithm.
    void tune(const std::vector<int>& rows);

    // Calls `stage` on the host, in the order of the stream, before a pass ("begin") and after each of its stages: to time them.
    using StageWatch = std::function<void(const char* stage, const Stream& stream)>;
    void watch(StageWatch stage) { stage_ = std::move(stage); }
    bool watched() const { return stage_ != nullptr; }

    const float* logits() const { return logits_; }
    int logits_stride() const { return model_.lm_head.n; }
    SampleOut* sample_out() const { return sample_out_; }  // [max_tokens], device

  private:
    static size_t lay_out(const GpuModel& model, const ForwardLimits& limits, std::byte* base, Forward* out);
    struct Product {
        const uint16_t* x = nullptr;
        const GpuMatrix* matrix = nullptr;
        void* y = nullptr;
        int y_stride = 0;
        GemvEpilogue epilogue = GemvEpilogue::kStore;
        AppliedNorm norm = {};  // both only where norms_are_fused()
        NextNorm next = {};
        bool bias_later = false;  // who reads it can add the bias: of cuBLASLt's a kernel would have to
    };
    // Returns the bias, if adding it is left to who reads the result; else nullptr. With `tune`, matrices
    // that are read alike (all layers' of a kind), the product is not made, its algorithm chosen.
    const float* matmul(const Product& product, int rows, const std::vector<const uint16_t*>* tune = nullptr);
    // `bias`: of q, k and v, if it is not in them yet; else nullptr.
    void attention(const StepView& step, int layer, const float* bias);
    // Products of so few rows that norms need no kernels of their own.
    bool norms_are_fused(int rows) const { return rows <= kGemvMaxRows && model_.hidden_stride <= kGemvMaxNorm; }
    void done(const char* stage) const {
        if (stage_) {
            stage_(stage, stream_);
        }
    }
    NextNorm next_norm(const float* weight) const;
    AppliedNorm applied_norm(int first_row) const;

    const GpuModel& model_;
    ForwardLimits limits_;
    int64_t kv_slots_;
    int head_dim_padded_;
    const Stream& stream_;
    StageWatch stage_;
    DeviceMemory workspace_;
    DeviceMemory kv_;  // [layer][keys, values][kv head][slot][head_dim_padded]
    std::unique_ptr<Gemm> gemm_;
    float* hidden_ = nullptr;          // [max_tokens][hidden_stride]
    uint16_t* normed_ = nullptr;       // same, bf16; with fused norms not divided by the root mean square yet
    float* squares_ = nullptr;         // [kGemvMaxRows][hidden_stride / 16], for fused norms
    float* qkv_ = nullptr;             // [max_tokens][qkv.n]
    float* rotation_ = nullptr;        // [max_tokens][head_dim]
    uint16_t* query_ = nullptr;        // [max_tokens][n_heads][head_dim_padded]
    uint16_t* attended_ = nullptr;     // [max_tokens][attended_stride]
    uint16_t* gate_up_ = nullptr;      // [max_tokens][gate_up.n]
    uint16_t* ffn_ = nullptr;          // [max_tokens][ffn_stride]
    float* logits_ = nullptr;          // [max_sequences][lm_head.n]
    uint16_t* expanded_ = nullptr;     // the largest matrix of one-byte weights as bf16
    float* gemv_partial_ = nullptr;
    unsigned* tickets_ = nullptr;
    float* split_partial_ = nullptr;   // of attention
    float* split_ml_ = nullptr;
    unsigned* split_tickets_ = nullptr;
    SampleOut* sample_out_ = nullptr;
    int* sampled_ = nullptr;           // [max_tokens]
    SamplePart* sample_parts_ = nullptr;    // [multiprocessors], as are the next two; of few rows of a large vocabulary
    SampleState* sample_states_ = nullptr;
    unsigned* sample_tickets_ = nullptr;
    std::byte* gemm_workspace_ = nullptr;
};

}  // namespace llm::engine::cuda
