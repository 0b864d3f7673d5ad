#include <cublasLt.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "engine_worker/backend/cuda/algorithm_cache.hpp"
#include "engine_worker/backend/cuda/gemm.hpp"
#include "engine_worker/backend/cuda/plan.hpp"

namespace llm::engine::cuda {
namespace {

// How many algorithms are timed, those first of which cuBLASLt expects most. Of few rows it expects little that is right.
constexpr int candidates_for(int rows) {
    return rows <= kGemmUntimedRows ? 32 : 16;
}
constexpr int kRounds = 4;           // of timing, the best counts
constexpr float kEnoughTimed = 1.0f;  // milliseconds after which there are no more rounds: long products vary less

void check(cublasStatus_t status, const char* what) {
    if (status != CUBLAS_STATUS_SUCCESS) {
        throw std::runtime_error(std::string("cuBLASLt failed while ") + what + ": status " +
                                 std::to_string(static_cast<int>(status)));
    }
}

static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(AlgorithmBytes));

// The descriptors of one shape. cuBLASLt counts by columns: what is [n][k] by rows is k x n to it, so y transposed =
// w (transposed) times x.
class Description {
  public:
    explicit Description(const GemmCall& call) {
        check(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product");
        set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
        set(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N);
        const auto layout = [](cublasLtMatrixLayout_t& out, cudaDataType_t type, int rows, int columns, int stride) {
            check(cublasLtMatrixLayoutCreate(&out, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns),
                                             stride),
                  "describing a matrix");
        };
        layout(w_, CUDA_R_16BF, call.k, call.n, call.k);
        layout(x_, CUDA_R_16BF, call.k, call.rows, call.k);
        layout(y_, call.bf16_out ? CUDA_R_16BF : CUDA_R_32F, call.n, call.rows, call.y_stride);
        if (call.bf16_out) {
            reductions_ = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
        }
    }
    ~Description() {
        cublasLtMatrixLayoutDestroy(y_);
        cublasLtMatrixLayoutDestroy(x_);
        cublasLtMatrixLayoutDestroy(w_);
        cublasLtMatmulDescDestroy(operation_);
    }
    Description(const Description&) = delete;
    Description& operator=(const Description&) = delete;

    template <typename T>
    void set(cublasLtMatmulDescAttributes_t attribute, T value) {
        check(cublasLtMatmulDescSetAttribute(operation_, attribute, &value, sizeof value), "describing a product");
    }

    cublasLtMatmulDesc_t operation_ = nullptr;
    cublasLtMatrixLayout_t w_ = nullptr, x_ = nullptr, y_ = nullptr;
    // Where k is split: the parts of a sum are f32 until it is whole. Some algorithms would keep them in the type of the result.
    uint32_t reductions_ = CUBLASLT_REDUCTION_SCHEME_MASK;
};

GemmShape shape_of(const GemmCall& call) {
    return {call.n, call.k, call.rows, (call.bf16_out ? 1 : 0) | (call.add ? 2 : 0)};
}

}  // namespace

struct Gemm::Parts {
    Parts(const Stream& s, std::byte* w, const std::string& device_name, const std::string& file)
        : stream(s), workspace(w), cache(file, device_name + ", cuBLASLt " + std::to_string(cublasLtGetVersion())) {
        check(cublasLtCreate(&handle), "starting");
    }
    ~Parts() { cublasLtDestroy(handle); }

    const Stream& stream;
    std::byte* workspace;
    AlgorithmCache cache;
    cublasLtHandle_t handle = nullptr;
    std::map<GemmShape, cublasLtMatmulAlgo_t> chosen;  // also for shapes that were not timed

    std::vector<cublasLtMatmulHeuristicResult_t> candidates(const Description& d, int wanted) const {
        cublasLtMatmulPreference_t preference = nullptr;
        check(cublasLtMatmulPreferenceCreate(&preference), "choosing");
        const size_t bytes = kWorkspace;
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                                             sizeof bytes);
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &d.reductions_,
                                             sizeof d.reductions_);
        std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<size_t>(wanted));
        int found = 0;
        const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, d.operation_, d.w_, d.x_, d.y_, d.y_,
                                                                     preference, wanted, results.data(), &found);
        cublasLtMatmulPreferenceDestroy(preference);
        check(status, "choosing an algorithm");
        results.resize(static_cast<size_t>(found));
        std::erase_if(results, [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS; });
        if (results.empty()) {
            throw std::runtime_error("cuBLASLt knows no algorithm for a product that the model needs");
        }
        return results;
    }

    cublasStatus_t multiply(const Description& d, const GemmCall& call, const cublasLtMatmulAlgo_t& algorithm) const {
        const float one = 1;
        const float beta = call.add ? 1 : 0;
        return cublasLtMatmul(handle, d.operation_, &one, call.w, d.w_, call.x, d.x_, &beta, call.y, d.y_, call.y,
                              d.y_, &algorithm, workspace, kWorkspace, stream.get());
    }

    // Milliseconds of one `product` (true if it was made) in the best of kRounds of `in_a_row`, with the weights that have their turn;
    // negative if it cannot be made. Gives up when it is a quarter slower than `to_beat`, unless that is negative.
    template <typename Product>
    float time(const std::vector<const uint16_t*>& weights, size_t& turn, float to_beat, int in_a_row, const Product& product) const {
        float best = -1;
        float sum = 0;
        Event start(true);
        Event end(true);
        for (int round = 0; round < kRounds; round++) {
            // The GPU is busy with this while the host launches what is timed: no gap is.
            stream.zero(workspace, kWorkspace);
            if (!product(weights[turn++ % weights.size()])) {
                return -1;
            }
            start.record(stream);
            for (int i = 0; i < in_a_row; i++) {
                product(weights[turn++ % weights.size()]);
            }
            end.record(stream);
            end.synchronize();
            const float all = Event::elapsed(start, end);
            const float ms = all / static_cast<float>(in_a_row);
            if (best < 0 || ms < best) {
                best = ms;
            }
            sum += all;
            if (sum > kEnoughTimed || (to_beat >= 0 && best > 1.25f * to_beat)) {
                break;
            }
        }
        return best;
    }

    bool still_valid(const Description& d, const cublasLtMatmulAlgo_t& algorithm) const {
        cublasLtMatmulHeuristicResult_t result;
        return cublasLtMatmulAlgoCheck(handle, d.operation_, d.w_, d.x_, d.y_, d.y_, &algorithm, &result) ==
                   CUBLAS_STATUS_SUCCESS &&
               result.workspaceSize <= kWorkspace;
    }
};

Gemm::Gemm(const Stream& stream, std::byte* workspace, const std::string& device_name, const std::string& cache_file)
    : parts_(std::make_unique<Parts>(stream, workspace, device_name, cache_file)) {}

Gemm::~Gemm() = default;

void Gemm::tune(const GemmCall& call, const std::vector<const uint16_t*>& all_weights, const OwnProduct& own,
                const std::function<void()>& more) {
    const GemmShape shape = shape_of(call);
    const AlgorithmBytes* const known = parts_->cache.find(shape);
    const int known_choice = known != nullptr ? cuda::own_choice(*known) : kLibrary;
    if (parts_->chosen.contains(shape) || (known_choice != kLibrary && known_choice < own.choices)) {
        return;
    }
    const Description description(call);
    cublasLtMatmulAlgo_t algorithm;
    if (known != nullptr && known_choice == kLibrary) {
        std::memcpy(&algorithm, known, sizeof algorithm);
        if (parts_->still_valid(description, algorithm)) {
            parts_->chosen[shape] = algorithm;
            return;
        }
    }
    const std::vector<const uint16_t*> weights = all_weights.empty() ? std::vector{call.w} : all_weights;
    // Several, since one that begins while the one before it ends is worth that, and the clock of events is coarse.
    const int in_a_row = own.choices > 0 ? 4 : 1;
    float best = -1;
    int own_best = kLibrary;
    size_t turn = 0;
    GemmCall trial = call;
    for (const auto& candidate : parts_->candidates(description, candidates_for(call.rows))) {
        const float ms = parts_->time(weights, turn, best, in_a_row, [&](const uint16_t* w) {
            trial.w = w;
            const bool made = parts_->multiply(description, trial, candidate.algo) == CUBLAS_STATUS_SUCCESS;
            if (made && more) {
                more();
            }
            return made;
        });
        if (ms >= 0 && (best < 0 || ms < best)) {
            best = ms;
            algorithm = candidate.algo;
        }
    }
    for (int choice = 0; choice < own.choices; choice++) {
        const float ms = parts_->time(weights, turn, best, in_a_row, [&](const uint16_t* w) {
            own.make(w, choice);
            return true;
        });
        if (best < 0 || ms < best) {
            best = ms;
            own_best = choice;
        }
    }
    if (own_best != kLibrary) {
        parts_->cache.put(shape, own_kernel(own_best));
        return;
    }
    if (best < 0) {
        throw std::runtime_error("cuBLASLt has no working algorithm for a product that the model needs");
    }
    parts_->chosen[shape] = algorithm;
    AlgorithmBytes bytes;
    std::memcpy(&bytes, &algorithm, sizeof bytes);
    parts_->cache.put(shape, bytes);
}

int Gemm::own_choice(const GemmCall& call) const {
    const GemmShape shape = shape_of(call);
    return call.rows <= kGemmUntimedRows ? parts_->cache.own_choice(shape, kGemmUntimedRows, 0)
                                         : parts_->cache.own_choice(shape, kGemmMaxRows, kLibrary);
}

void Gemm::save() const {
    parts_->cache.save();
}

void Gemm::run(const GemmCall& call) {
    const Description description(call);
    auto found = parts_->chosen.find(shape_of(call));
    if (found == parts_->chosen.end()) {
        found = parts_->chosen.emplace(shape_of(call), parts_->candidates(description, 1).front().algo).first;
    }
    check(parts_->multiply(description, call, found->second), "multiplying");
}

}  // namespace llm::engine::cuda
