#include "engine_worker/backend/cpu/pack.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace llm::engine {
namespace {

// The rows of one panel; nullptr = a row of zeros that pads the last panel.
using Rows = std::array<const std::byte*, kPanel>;

size_t panel_bytes(WeightType type, int32_t k_padded) {
    const size_t values = static_cast<size_t>(k_padded) * kPanel;
    switch (type) {
        case WeightType::kF32:
            return values * 4;
        case WeightType::kBf16:
            return values * 2;
        default:
            return values + static_cast<size_t>(k_padded / kGroup) * kPanel * sizeof(float);
    }
}

// The whole of one row as f32, zero-padded.
void load_row(DType dtype, const std::byte* row, int32_t k, int32_t k_padded, float* out) {
    std::fill(out, out + k_padded, 0.0f);
    if (row != nullptr) {
        convert_to_f32(dtype, row, static_cast<size_t>(k), out);
    }
}

void pack_f32(DType dtype, const Rows& rows, int32_t k, float* out, std::vector<float>& row) {
    for (size_t r = 0; r < kPanel; r++) {
        load_row(dtype, rows[r], k, k, row.data());
        for (size_t i = 0; i < static_cast<size_t>(k); i++) {
            out[i * kPanel + r] = row[i];
        }
    }
}

// bf16 to bf16, the common case: pairs move as they are.
void pack_bf16_pairs(const Rows& rows, int32_t k, int32_t k_padded, std::byte* out) {
    const size_t pairs = static_cast<size_t>(k) / 2;
    constexpr size_t kBlock = 16;  // pairs of each row at a time: one cache line of it
    for (size_t begin = 0; begin < pairs; begin += kBlock) {
        const size_t count = std::min(kBlock, pairs - begin);
        for (size_t r = 0; r < kPanel; r++) {
            if (rows[r] == nullptr) {
                continue;  // the memory is zero already
            }
            for (size_t i = begin; i < begin + count; i++) {
                std::memcpy(out + (i * kPanel + r) * 4, rows[r] + i * 4, 4);
            }
        }
    }
    if (k < k_padded) {
        for (size_t r = 0; r < kPanel; r++) {
            if (rows[r] != nullptr) {
                std::memcpy(out + (pairs * kPanel + r) * 4, rows[r] + pairs * 4, 2);
            }
        }
    }
}

void pack_bf16(DType dtype, const Rows& rows, int32_t k, int32_t k_padded, std::byte* out,
               std::vector<float>& row) {
    if (dtype == DType::kBf16) {
        pack_bf16_pairs(rows, k, k_padded, out);
        return;
    }
    auto* values = reinterpret_cast<uint16_t*>(out);
    for (size_t r = 0; r < kPanel; r++) {
        load_row(dtype, rows[r], k, k_padded, row.data());
        for (size_t i = 0; i < static_cast<size_t>(k_padded); i++) {
            values[(i / 2 * kPanel + r) * 2 + i % 2] = f32_to_bf16(row[i]);
        }
    }
}

// Symmetric: value = scale * q, q in [-127, 127], one scale per row and group.
void pack_int8(DType dtype, const Rows& rows, int32_t k, int32_t k_padded, std::byte* out,
               std::vector<float>& row) {
    constexpr size_t kValueBytes = size_t{kGroup} * kPanel;
    constexpr size_t kGroupBytes = kValueBytes + kPanel * sizeof(float);
    for (size_t r = 0; r < kPanel; r++) {
        load_row(dtype, rows[r], k, k_padded, row.data());
        for (size_t g = 0; g < static_cast<size_t>(k_padded / kGroup); g++) {
            const float* x = row.data() + g * kGroup;
            float largest = 0;
            for (size_t i = 0; i < kGroup; i++) {
                largest = std::max(largest, std::fabs(x[i]));
            }
            const float scale = largest / 127.0f;
            const float inverse = scale > 1e-37f ? 1.0f / scale : 0.0f;
            std::byte* values = out + g * kGroupBytes;
            std::memcpy(values + kValueBytes + r * sizeof(float), &scale, sizeof(scale));
            for (size_t i = 0; i < kGroup; i++) {
                const float scaled = x[i] * inverse;
                const auto q = static_cast<int32_t>(scaled + (scaled < 0 ? -0.5f : 0.5f));
                values[(i / 4 * kPanel + r) * 4 + i % 4] = static_cast<std::byte>(q + 128);
            }
        }
    }
}

}  // namespace

int32_t padded_inputs(WeightType type, int32_t k) {
    const size_t multiple = type == WeightType::kInt8 ? kGroup : (type == WeightType::kBf16 ? 2 : 1);
    return static_cast<int32_t>(round_up(static_cast<size_t>(k), multiple));
}

size_t activation_stride(WeightType type, int32_t k) {
    const auto padded = static_cast<size_t>(padded_inputs(type, k));
    switch (type) {
        case WeightType::kF32:
            return round_up(padded * 4, 64);
        case WeightType::kBf16:
            return round_up(padded * 2, 64);
        default:
            return round_up(padded + padded / kGroup * 8, 64);
    }
}

Matrix pack_matrix(ThreadPool& pool, WeightType type, const std::vector<Tensor>& parts,
                   const std::vector<Tensor>& biases, bool interleave) {
    // Where each panel's rows come from.
    struct Source {
        size_t part;
        int64_t row;
    };
    std::vector<Source> order;  // one entry per output row; part == parts.size() = padding
    const auto padding = Source{parts.size(), 0};
    if (interleave) {
        const int64_t height = parts[0].shape[0];
        constexpr int64_t kRun = kPanel / 2;
        for (int64_t begin = 0; begin < height; begin += kRun) {
            for (size_t part = 0; part < 2; part++) {
                for (int64_t row = begin; row < begin + kRun; row++) {
                    order.push_back(row < height ? Source{part, row} : padding);
                }
            }
        }
    } else {
        for (size_t part = 0; part < parts.size(); part++) {
            for (int64_t row = 0; row < parts[part].shape[0]; row++) {
                order.push_back({part, row});
            }
        }
    }
    Matrix matrix;
    PackedMatrix& packed = matrix.packed;
    packed.type = type;
    packed.n = static_cast<int32_t>(order.size());
    packed.k = static_cast<int32_t>(parts[0].shape[1]);
    packed.k_padded = padded_inputs(type, packed.k);
    order.resize(round_up(order.size(), kPanel), padding);
    packed.n_panels = static_cast<int32_t>(order.size() / kPanel);
    packed.panel_bytes = panel_bytes(type, packed.k_padded);
    matrix.memory = Region(matrix.bytes());
    packed.data = matrix.memory.data();

    std::vector<std::vector<float>> scratch(static_cast<size_t>(pool.size()),
                                            std::vector<float>(static_cast<size_t>(packed.k_padded)));
    pool.run(packed.n_panels, [&](int32_t panel, int32_t worker) {
        std::byte* out = matrix.memory.data() + static_cast<size_t>(panel) * packed.panel_bytes;
        std::vector<float>& row = scratch[static_cast<size_t>(worker)];
        // Parts may differ in format, in files mixed by hand; a panel across two such parts is converted row
        // by row.
        DType dtype = parts[0].dtype;
        Rows rows{};
        bool mixed = false;
        bool any = false;
        for (size_t r = 0; r < kPanel; r++) {
            const Source& source = order[static_cast<size_t>(panel) * kPanel + r];
            if (source.part == parts.size()) {
                continue;
            }
            const Tensor& part = parts[source.part];
            mixed = mixed || (any && part.dtype != dtype);
            dtype = part.dtype;
            any = true;
            rows[r] = part.data + static_cast<size_t>(source.row) * part.row_bytes();
        }
        std::vector<float> widened;
        if (mixed) {
            widened.resize(static_cast<size_t>(packed.k) * kPanel);
            for (size_t r = 0; r < kPanel; r++) {
                const Source& source = order[static_cast<size_t>(panel) * kPanel + r];
                if (rows[r] != nullptr) {
                    float* copy = widened.data() + r * static_cast<size_t>(packed.k);
                    convert_to_f32(parts[source.part].dtype, rows[r], static_cast<size_t>(packed.k), copy);
                    rows[r] = reinterpret_cast<const std::byte*>(copy);
                }
            }
            dtype = DType::kF32;
        }
        switch (type) {
            case WeightType::kF32:
                pack_f32(dtype, rows, packed.k, reinterpret_cast<float*>(out), row);
                break;
            case WeightType::kBf16:
                pack_bf16(dtype, rows, packed.k, packed.k_padded, out, row);
                break;
            case WeightType::kInt8:
                pack_int8(dtype, rows, packed.k, packed.k_padded, out, row);
                break;
        }
    });

    const bool biased =
        std::any_of(biases.begin(), biases.end(), [](const Tensor& bias) { return bool(bias); });
    if (biased) {
        matrix.bias_memory = Region(order.size() * sizeof(float));
        auto* bias = reinterpret_cast<float*>(matrix.bias_memory.data());
        std::vector<std::vector<float>> values;
        for (const Tensor& tensor : biases) {
            values.push_back(tensor ? load_vector(tensor) : std::vector<float>());
        }
        for (size_t i = 0; i < order.size(); i++) {
            const bool present = order[i].part < parts.size() && !values[order[i].part].empty();
            bias[i] = present ? values[order[i].part][static_cast<size_t>(order[i].row)] : 0.0f;
        }
        packed.bias = bias;
    }
    return matrix;
}

std::vector<float> load_vector(const Tensor& tensor) {
    std::vector<float> values(static_cast<size_t>(tensor.shape[0]));
    convert_to_f32(tensor.dtype, tensor.data, values.size(), values.data());
    return values;
}

}  // namespace llm::engine
