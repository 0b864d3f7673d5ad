#include "engine_worker/backend/cuda/weights.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <future>
#include <map>
#include <string>
#include <thread>

#include "engine_worker/backend/cuda/kernels/launch.hpp"
#include "engine_worker/backend/cuda/plan.hpp"
#include "engine_worker/model/dtype.hpp"

namespace llm::engine::cuda {
namespace {

constexpr size_t kStaging = size_t{16} << 20;
constexpr unsigned kFillers = 4;  // threads: one copies from the page cache at a fraction of what the bus takes
constexpr size_t kWorthSharing = size_t{1} << 20;

// Hands out addresses in one block; with no block it only counts.
class Arena {
  public:
    explicit Arena(std::byte* base) : base_(base) {}
    template <typename T>
    T* take(size_t count) {
        auto* out = reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(base_) + used_);
        used_ += (count * sizeof(T) + 255) / 256 * 256;
        return out;
    }
    size_t used() const { return used_; }

  private:
    std::byte* base_;
    size_t used_ = 0;
};

class Uploader {
  public:
    explicit Uploader(const Stream& stream) : stream_(stream) {
        for (PinnedMemory& one : staging_) {
            one = PinnedMemory(kStaging);
        }
    }
    // Sends `rows` rows of row_bytes; fill(row, target) writes each, several threads different ones.
    void rows(const void* device, int rows, size_t row_bytes, const std::function<void(int, std::byte*)>& fill) {
        auto* target = static_cast<std::byte*>(const_cast<void*>(device));
        const int at_once = static_cast<int>(std::max<size_t>(1, kStaging / row_bytes));
        if (row_bytes > kStaging) {
            throw std::runtime_error("a row of a matrix has " + std::to_string(row_bytes) + " bytes: too long");
        }
        for (int first = 0; first < rows; first += at_once) {
            const int count = std::min(at_once, rows - first);
            sent_[current_].synchronize();
            std::byte* from = staging_[current_].data();
            const auto fill_part = [&](int part, int parts) {
                for (int i = count * part / parts; i < count * (part + 1) / parts; i++) {
                    fill(first + i, from + static_cast<size_t>(i) * row_bytes);
                }
            };
            const int parts = static_cast<size_t>(count) * row_bytes < kWorthSharing ? 1 : fillers_;
            std::vector<std::future<void>> others;
            for (int part = 1; part < parts; part++) {
                others.push_back(std::async(std::launch::async, fill_part, part, parts));
            }
            fill_part(0, parts);
            for (auto& other : others) {
                other.get();
            }
            stream_.upload(target + static_cast<size_t>(first) * row_bytes, from, static_cast<size_t>(count) * row_bytes);
            sent_[current_].record(stream_);
            current_ = 1 - current_;
        }
    }
    void finish() { stream_.synchronize(); }

  private:
    const Stream& stream_;
    const int fillers_ = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, kFillers));
    PinnedMemory staging_[2];
    Event sent_[2];
    int current_ = 0;
};

// One row as bf16, zeros from `k` to `padded`.
void to_bf16_row(const Tensor& tensor, int row, int k, int padded, std::byte* out) {
    if (tensor.dtype == DType::kF8E4M3) {
        throw std::runtime_error("tensor " + tensor.name + " is FP8, but not those it is joined with");
    }
    const std::byte* from = tensor.data + static_cast<size_t>(row) * tensor.row_bytes();
    auto* to = reinterpret_cast<uint16_t*>(out);
    const auto count = static_cast<size_t>(k);
    if (tensor.dtype == DType::kBf16) {
        std::memcpy(to, from, count * 2);
    } else {
        float values[256];
        for (size_t i = 0; i < count; i += std::size(values)) {
            const size_t n = std::min(std::size(values), count - i);
            convert_to_f32(tensor.dtype, from + i * dtype_size(tensor.dtype), n, values);
            for (size_t j = 0; j < n; j++) {
                to[i + j] = f32_to_bf16(values[j]);
            }
        }
    }
    std::fill(to + k, to + padded, uint16_t{0});
}

int rows_of(const Tensor& tensor) {
    return static_cast<int>(tensor.shape[0]);
}

// Lays the model out and, given an uploader, fills it.
class Builder {
  public:
    Builder(const ModelConfig& config, const ModelTensors& tensors, std::byte* base, Uploader* uploader)
        : tensors_(tensors), arena_(base), uploader_(uploader) {
        model_.config = config;
        model_.hidden_stride = static_cast<int>(round_up(config.dim, kRowPad));
        model_.attended_stride = static_cast<int>(round_up(int64_t{config.n_heads} * config.head_dim, kRowPad));
        model_.ffn_stride = static_cast<int>(round_up(config.ffn_dim, kRowPad));
    }

    GpuModel build() {
        const ModelConfig& config = model_.config;
        model_.norm = vector({tensors_.norm}, model_.hidden_stride);
        const GpuMatrix table = matrix({tensors_.embedding}, {}, config.dim, model_.hidden_stride);
        model_.embedding = static_cast<const uint16_t*>(table.w);
        model_.lm_head = config.tied_embeddings
                             ? table
                             : matrix({tensors_.lm_head}, {}, config.dim, model_.hidden_stride);
        for (const LayerTensors& from : tensors_.layers) {
            GpuLayer layer;
            const std::pair<const Tensor&, const Tensor&> projections[] = {
                {from.q, from.q_scale},       {from.k, from.k_scale},   {from.v, from.v_scale},      {from.o, from.o_scale},
                {from.gate, from.gate_scale}, {from.up, from.up_scale}, {from.down, from.down_scale}};
            for (const auto& [projection, scale] : projections) {
                scales_[projection.name] = scale;
            }
            layer.attn_norm = vector({from.attn_norm}, model_.hidden_stride);
            layer.mlp_norm = vector({from.mlp_norm}, model_.hidden_stride);
            if (from.q_norm) {
                layer.q_norm = vector({from.q_norm}, config.head_dim);
                layer.k_norm = vector({from.k_norm}, config.head_dim);
            }
            const std::vector<Tensor> biases =
                from.q_bias ? std::vector<Tensor>{from.q_bias, from.k_bias, from.v_bias} : std::vector<Tensor>{};
            layer.qkv = matrix({from.q, from.k, from.v}, biases, config.dim, model_.hidden_stride);
            layer.o = matrix({from.o}, from.o_bias ? std::vector<Tensor>{from.o_bias} : std::vector<Tensor>{},
                             config.n_heads * config.head_dim, model_.attended_stride);
            layer.gate_up = gate_up(from);
            layer.down = matrix({from.down}, {}, config.ffn_dim, model_.ffn_stride);
            model_.layers.push_back(layer);
        }
        frequencies();
        model_.bytes = arena_.used();
        return std::move(model_);
    }

  private:
    // The parts one after the other as f32, zeros up to `padded`.
    const float* vector(const std::vector<Tensor>& parts, int padded) {
        auto* device = arena_.take<float>(static_cast<size_t>(padded));
        if (uploader_ != nullptr) {
            uploader_->rows(device, 1, static_cast<size_t>(padded) * sizeof(float), [&](int, std::byte* out) {
                auto* to = reinterpret_cast<float*>(out);
                int at = 0;
                for (const Tensor& part : parts) {
                    convert_to_f32(part.dtype, part.data, static_cast<size_t>(rows_of(part)), to + at);
                    at += rows_of(part);
                }
                std::fill(to + at, to + padded, 0.0f);
            });
        }
        return device;
    }

    // Row i of the matrix is source(i): a part and a row of it, or an empty part for zeros.
    using Source = std::function<std::pair<const Tensor*, int>(int)>;
    GpuMatrix assembled(int n, int k, int padded, const Source& source) {
        GpuMatrix out;
        out.n = n;
        out.k = padded;
        if (const Tensor* first = source(0).first; first->dtype == DType::kF8E4M3) {
            return assembled_e4m3(out, k, source);
        }
        out.w = arena_.take<uint16_t>(static_cast<size_t>(n) * static_cast<size_t>(padded));
        if (uploader_ != nullptr) {
            const size_t row_bytes = static_cast<size_t>(padded) * sizeof(uint16_t);
            uploader_->rows(out.w, n, row_bytes, [&](int row, std::byte* to) {
                const auto [part, index] = source(row);
                if (part == nullptr) {
                    std::memset(to, 0, row_bytes);
                } else {
                    to_bf16_row(*part, index, k, padded, to);
                }
            });
        }
        return out;
    }

    // One-byte rows as they are, and the factor of each.
    GpuMatrix assembled_e4m3(GpuMatrix out, int k, const Source& source) {
        const auto row_bytes = static_cast<size_t>(out.k);
        out.w = arena_.take<uint8_t>(static_cast<size_t>(out.n) * row_bytes);
        auto* scale = arena_.take<float>(static_cast<size_t>(out.n));
        out.scale = scale;
        if (uploader_ == nullptr) {
            return out;
        }
        uploader_->rows(out.w, out.n, row_bytes, [&](int row, std::byte* to) {
            const auto [part, index] = source(row);
            std::memset(to, 0, row_bytes);
            if (part == nullptr) {
                return;
            }
            if (part->dtype != DType::kF8E4M3) {
                throw std::runtime_error("tensor " + part->name + " is not FP8 like those it is joined with");
            }
            std::memcpy(to, part->data + static_cast<size_t>(index) * static_cast<size_t>(k), static_cast<size_t>(k));
        });
        uploader_->rows(scale, 1, static_cast<size_t>(out.n) * sizeof(float), [&](int, std::byte* to) {
            auto* factors = reinterpret_cast<float*>(to);
            for (int row = 0; row < out.n; row++) {
                const auto [part, index] = source(row);
                factors[row] = part == nullptr ? 0.0f : scale_of(*part, index);
            }
        });
        return out;
    }

    float scale_of(const Tensor& matrix, int row) const {
        const Tensor& scale = scales_.at(matrix.name);
        const auto index = scale.shape[0] == 1 ? size_t{0} : static_cast<size_t>(row);
        float value = 0;
        convert_to_f32(scale.dtype, scale.data + index * dtype_size(scale.dtype), 1, &value);
        return value;
    }

    GpuMatrix matrix(const std::vector<Tensor>& parts, const std::vector<Tensor>& biases, int k, int padded) {
        int rows = 0;
        for (const Tensor& part : parts) {
            rows += rows_of(part);
        }
        const int n = static_cast<int>(round_up(rows, 16));
        GpuMatrix out = assembled(n, k, padded, [&](int row) -> std::pair<const Tensor*, int> {
            for (const Tensor& part : parts) {
                if (row < rows_of(part)) {
                    return {&part, row};
                }
                row -= rows_of(part);
            }
            return {nullptr, 0};
        });
        out.bias = biases.empty() ? nullptr : vector(biases, n);
        return out;
    }

    GpuMatrix gate_up(const LayerTensors& from) {
        const int ffn = model_.config.ffn_dim;
        const int n = static_cast<int>(round_up(ffn, 8)) * 2;
        return assembled(n, model_.config.dim, model_.hidden_stride, [&](int row) -> std::pair<const Tensor*, int> {
            const int index = row / 16 * 8 + row % 8;
            if (index >= ffn) {
                return {nullptr, 0};
            }
            return {row % 16 < 8 ? &from.gate : &from.up, index};
        });
    }

    void frequencies() {
        const std::vector<double> values = rope_frequencies(model_.config);
        auto* device = arena_.take<double>(values.size());
        if (uploader_ != nullptr) {
            uploader_->rows(device, 1, values.size() * sizeof(double), [&](int, std::byte* out) {
                std::memcpy(out, values.data(), values.size() * sizeof(double));
            });
        }
        model_.frequencies = device;
    }

    const ModelTensors& tensors_;
    Arena arena_;
    Uploader* uploader_;
    std::map<std::string, Tensor> scales_;  // by the name of the matrix
    GpuModel model_;
};

}  // namespace

size_t GpuModel::bytes_per_step() const {
    size_t sum = lm_head.bytes();
    for (const GpuLayer& layer : layers) {
        sum += layer.qkv.bytes() + layer.o.bytes() + layer.gate_up.bytes() + layer.down.bytes();
    }
    return sum;
}

GpuModel model_shape(const ModelConfig& config, const ModelTensors& tensors) {
    return Builder(config, tensors, nullptr, nullptr).build();
}

GpuModel upload_model(const ModelConfig& config, const ModelTensors& tensors, const Stream& stream) {
    DeviceMemory memory(model_shape(config, tensors).bytes);
    Uploader uploader(stream);
    GpuModel model = Builder(config, tensors, memory.data(), &uploader).build();
    uploader.finish();
    model.memory = std::move(memory);
    tensors.store->release_pages();
    return model;
}

}  // namespace llm::engine::cuda
