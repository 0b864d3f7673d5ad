// Products of many rows: cuBLASLt, with the algorithm for each shape chosen by timing and remembered in a file. Where the
// backend has a kernel of its own for a shape, it is one of those that are timed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine_worker/backend/cuda/runtime.hpp"

namespace llm::engine::cuda {

// y[row][j] = sum over k of x[row][k] * w[j][k] (+ y[row][j] with `add`).
struct GemmCall {
    const uint16_t* w = nullptr;  // bf16 [n][k]
    const uint16_t* x = nullptr;  // bf16 [rows][k]
    void* y = nullptr;            // [rows][y_stride], f32 or bf16 (without `add`)
    int n = 0;
    int k = 0;
    int rows = 0;
    int y_stride = 0;
    bool bf16_out = false;
    bool add = false;
};

// Another way to make the whole product.
struct OwnProduct {
    std::function<void(const uint16_t* w, int choice)> make;  // with these weights instead of the call's, cut in one of the ways
    int choices = 0;                                          // how many ways there are
};

class Gemm {
  public:
    static constexpr size_t kWorkspace = size_t{32} << 20;

    // `workspace`: kWorkspace bytes of the device. `cache_file`: where chosen algorithms are kept; empty = nowhere.
    Gemm(const Stream& stream, std::byte* workspace, const std::string& device_name, const std::string& cache_file);
    ~Gemm();

    // Makes sure that an algorithm is chosen for the call's shape, by timing it (on the call's own memory) unless the
    // file knows it. To be called before graphs are recorded. `weights`: matrices of that shape that take turns as call.w
    // while it is timed, since in a step none is in the GPU's cache when its turn comes. `own`, if there is one, competes with
    // cuBLASLt and what it takes besides, `more`.
    void tune(const GemmCall& call, const std::vector<const uint16_t*>& weights = {}, const OwnProduct& own = {},
              const std::function<void()>& more = nullptr);
    // Which choice of the own product tune() found fastest for this shape, or for the same with the next
    // larger number of rows (of those up to kGemmUntimedRows, or of those above); negative: cuBLASLt is
    // faster. Where nothing was timed: 0 up to kGemmUntimedRows.
    int own_choice(const GemmCall& call) const;
    // Writes what tune() found to the file; failing to is not an error.
    void save() const;

    void run(const GemmCall& call);

  private:
    struct Parts;
    std::unique_ptr<Parts> parts_;
};

}  // namespace llm::engine::cuda
