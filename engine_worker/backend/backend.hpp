// The one seam between the scheduler and whatever computes: a flat description of one forward step.
//
// The scheduler fills a Step, the backend runs it and fills a StepResult. Neither side knows the other's types:
// no sequence, no request, no tensor class crosses here, only arrays. `cpu` is the reference for `cuda`; `sim`
// computes nothing and only takes the time that a cost model says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace llm::engine {

// How one row of logits becomes one token. The order of operations is: logit_bias, penalties, mask, temperature,
// top_k, top_p, min_p, draw (the order of vLLM and Hugging Face).
struct SampleParams {
    float temperature = 1.0f;         // 0 = greedy: the largest logit, the lower id on a tie
    float top_p = 1.0f;               // (0, 1]
    int32_t top_k = 0;                // 0 = all
    float min_p = 0.0f;               // [0, 1): of the largest probability
    float repetition_penalty = 1.0f;  // > 0; over prompt and generated tokens
    float presence_penalty = 0.0f;    // over generated tokens
    float frequency_penalty = 0.0f;   // over generated tokens
    uint64_t seed = 0;                // with `position` the whole state of the draw: neither batching nor preemption
    uint32_t position = 0;            // changes it. `position` = index of the token in the sequence
    const int32_t* tokens = nullptr;  // prompt then generated tokens so far; needed by penalties only
    int32_t n_prompt = 0;             // of `tokens`
    int32_t n_tokens = 0;             // of `tokens`
    const std::pair<int32_t, float>* logit_bias = nullptr;
    int32_t n_logit_bias = 0;
    const uint32_t* mask = nullptr;  // bit i of word i/32 set = token i allowed; nullptr = all
    int32_t n_logprobs = -1;         // -1 none; 0 the chosen token's only; else that many best as well (≤ 20)
};

// One forward step over a batch. All arrays belong to the caller and stay valid until wait() has returned; a pipelined
// backend reads them in launch() only.
struct Step {
    int32_t n_tok = 0;                // tokens computed in this step, over all sequences
    int32_t n_seq = 0;
    const int32_t* tok = nullptr;     // [n_tok] token ids; -1 - i (pipelined only): row i's of the step before
    const int32_t* pos = nullptr;     // [n_tok] position of each token in its sequence, from 0
    const int32_t* slot = nullptr;    // [n_tok] KV slot that the token's key and value go to
    const int32_t* q_start = nullptr; // [n_seq + 1] first token of each sequence in tok; q_start[n_seq] = n_tok
    const int32_t* ctx_len = nullptr; // [n_seq] context after this step: attention sees positions 0..ctx_len-1
    const int32_t* table = nullptr;   // [n_seq][table_ld] KV slot of every context position
    int32_t table_ld = 0;
    int32_t n_decode = 0;             // sequences [0, n_decode) have one token each
    int32_t n_logit = 0;              // rows whose logits are needed
    const int32_t* logit_row = nullptr;        // [n_logit] index into tok
    const SampleParams* sampling = nullptr;    // [n_logit]
    bool want_logits = false;                  // tests: also copy the raw logits out
    int32_t n_hidden = 0;                      // embeddings: rows whose last hidden state is wanted
    const int32_t* hidden_row = nullptr;       // [n_hidden] index into tok
};

struct TokenLogprob {
    int32_t token = 0;
    float logprob = 0;
};

struct StepResult {
    std::vector<int32_t> token;                     // [n_logit] the sampled ids
    std::vector<float> logprob;                     // [n_logit] of the sampled id, from the raw logits; 0 if not asked
    std::vector<std::vector<TokenLogprob>> top;     // [n_logit] best first; empty where not asked
    std::vector<float> logits;                      // [n_logit][vocab] raw, only with want_logits
    std::vector<float> hidden;                      // [n_hidden][hidden_size] after the last norm
};

// What the scheduler has to know of a loaded model.
struct BackendInfo {
    std::string name;             // "cpu", "cuda", "sim"
    int32_t vocab_size = 0;
    int32_t max_context = 0;      // tokens
    int64_t kv_slots = 0;         // one slot holds keys and values of one token in all layers
    int32_t max_step_tokens = 0;  // upper bound of Step::n_tok
    int32_t max_step_seqs = 0;    // upper bound of Step::n_seq
    int32_t hidden_size = 0;      // of StepResult::hidden; 0 = n_hidden is not supported
    bool asynchronous = false;    // launch() returns long before the step is computed
    bool pipelined = false;       // a step may be launched while the one before is computed, with its tokens
};

// A backend is driven by one thread. launch() and wait() alternate, but that a pipelined backend may be one launch()
// ahead: steps are computed, and waited for, in the order of their launches. A backend that computes synchronously does
// all in launch(). A failure that makes the backend unusable (a lost GPU) is thrown as std::runtime_error by wait().
class Backend {
  public:
    virtual ~Backend() = default;
    virtual const BackendInfo& info() const = 0;
    virtual void launch(const Step& step) = 0;
    virtual void wait(StepResult& result) = 0;
};

struct BackendOptions {
    std::string model_dir;        // Hugging Face directory; empty for sim
    int32_t threads = 0;          // CPU threads, 0 = the backend's choice
    int64_t kv_tokens = 0;        // KV capacity in tokens, 0 = the backend's choice
    int32_t max_context = 0;      // 0 = what the model says
    int32_t max_step_tokens = 512;
    int32_t max_step_seqs = 64;
    std::string dtype = "auto";   // CPU weights: auto, f32, bf16, int8
    double gpu_memory = 0.9;      // part of the GPU's memory that weights, work space and KV cache may use
};

// Each throws std::runtime_error with one clear sentence that names the file, field or feature at fault.
std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options);
std::unique_ptr<Backend> make_sim_backend(const BackendOptions& options);

}  // namespace llm::engine
