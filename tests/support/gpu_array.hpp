// Arrays on the GPU (or the emulated one) for kernel tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "engine_worker/backend/cuda/runtime.hpp"
#include "engine_worker/model/dtype.hpp"

namespace llm::testing {

inline const engine::cuda::Stream& test_stream() {
    static const engine::cuda::Stream stream;
    return stream;
}

template <typename T>
class GpuArray {
  public:
    // Filled with bytes 0xff: NaN as a float, nothing valid as an index.
    explicit GpuArray(size_t count) : GpuArray(poison(count)) {}
    GpuArray(const std::vector<T>& values) : count_(values.size()), memory_(values.size() * sizeof(T)) {
        test_stream().upload(memory_.data(), values.data(), count_ * sizeof(T));
        test_stream().synchronize();
    }
    T* get() const { return reinterpret_cast<T*>(memory_.data()); }
    std::vector<T> values() const {
        std::vector<T> out(count_);
        test_stream().download(out.data(), memory_.data(), count_ * sizeof(T));
        test_stream().synchronize();
        return out;
    }

  private:
    static std::vector<T> poison(size_t count) {
        std::vector<T> out(count);
        std::memset(static_cast<void*>(out.data()), 0xff, count * sizeof(T));
        return out;
    }
    size_t count_;
    engine::cuda::DeviceMemory memory_;
};

// Values that bf16 holds exactly, roughly normal.
inline std::vector<float> random_values(size_t count, uint64_t seed, float scale = 1) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal(0, scale);
    std::vector<float> out(count);
    for (float& v : out) {
        v = engine::bf16_to_f32(engine::f32_to_bf16(normal(random)));
    }
    return out;
}

inline std::vector<uint16_t> as_bf16(const std::vector<float>& values) {
    std::vector<uint16_t> out;
    for (const float v : values) {
        out.push_back(engine::f32_to_bf16(v));
    }
    return out;
}

inline std::vector<float> as_f32(const std::vector<uint16_t>& values) {
    std::vector<float> out;
    for (const uint16_t v : values) {
        out.push_back(engine::bf16_to_f32(v));
    }
    return out;
}

}  // namespace llm::testing
