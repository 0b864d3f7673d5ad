// What cuBLASLt computes, the plain way.
#include "engine_worker/backend/cuda/gemm.hpp"

#include <set>
#include <tuple>

#include "engine_worker/backend/cuda/algorithm_cache.hpp"
#include "engine_worker/backend/cuda/plan.hpp"
#include "engine_worker/model/dtype.hpp"
#include "tests/support/cuda_emulation/runtime.hpp"

namespace llm::engine::cuda {

struct Gemm::Parts {
    const Stream& stream;
};

Gemm::Gemm(const Stream& stream, std::byte*, const std::string&, const std::string&)
    : parts_(new Parts{stream}) {}
Gemm::~Gemm() = default;
void Gemm::tune(const GemmCall&, const std::vector<const uint16_t*>&, const OwnProduct&, const std::function<void()>&) {}
int Gemm::own_choice(const GemmCall& call) const {
    if (call.rows > kGemmUntimedRows && call.rows % 2 != 0) {
        return kLibrary;  // both ways are tested
    }
    return 1;  // not what is taken where nothing was timed
}
void Gemm::save() const {}

void Gemm::run(const GemmCall& call) {
    llm::emulation::enqueue(parts_->stream.get(), [call] {
        std::vector<float> x(static_cast<size_t>(call.k));
        const auto k = static_cast<size_t>(call.k);
        for (size_t row = 0; row < static_cast<size_t>(call.rows); row++) {
            for (size_t i = 0; i < k; i++) {
                x[i] = bf16_to_f32(call.x[row * k + i]);
            }
            for (size_t j = 0; j < static_cast<size_t>(call.n); j++) {
                float sum = 0;
                const uint16_t* w = call.w + j * k;
                for (size_t i = 0; i < k; i++) {
                    sum += x[i] * bf16_to_f32(w[i]);
                }
                const size_t at = row * static_cast<size_t>(call.y_stride) + j;
                if (call.bf16_out) {
                    static_cast<uint16_t*>(call.y)[at] = f32_to_bf16(sum);
                } else {
                    float& y = static_cast<float*>(call.y)[at];
                    y = call.add ? y + sum : sum;
                }
            }
        }
    });
}

}  // namespace llm::engine::cuda
