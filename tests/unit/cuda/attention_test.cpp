// Both attention kernels against float64, over scattered slots.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine_worker/backend/cuda/kernels/launch.hpp"
#include "engine_worker/backend/cuda/plan.hpp"
#include "tests/support/gpu_array.hpp"

namespace llm::engine::cuda {
namespace {

using llm::testing::as_bf16;
using llm::testing::as_f32;
using llm::testing::GpuArray;
using llm::testing::random_values;
using llm::testing::test_stream;

struct Shape {
    int n_heads, n_kv, head_dim, padded, window;
};

// Sequences of the given contexts, the last `queries` positions of each being computed.
class Attention {
  public:
    Attention(const Shape& shape, std::vector<int> contexts, std::vector<int> queries)
        : s_(shape), contexts_(std::move(contexts)), queries_(std::move(queries)) {
        longest_ = *std::max_element(contexts_.begin(), contexts_.end());
        slots_ = std::accumulate(contexts_.begin(), contexts_.end(), 0) + 5;
        std::vector<int> order(static_cast<size_t>(slots_));
        std::iota(order.begin(), order.end(), 0);
        std::shuffle(order.begin(), order.end(), std::mt19937(3));
        table_.assign(contexts_.size() * static_cast<size_t>(longest_), -1);
        size_t next = 0;
        q_start_ = {0};
        for (size_t i = 0; i < contexts_.size(); i++) {
            for (int p = 0; p < contexts_[i]; p++) {
                table_[i * static_cast<size_t>(longest_) + static_cast<size_t>(p)] = order[next++];
            }
            for (int p = contexts_[i] - queries_[i]; p < contexts_[i]; p++) {
                positions_.push_back(p);
            }
            q_start_.push_back(static_cast<int>(positions_.size()));
        }
        const auto cache = static_cast<size_t>(s_.n_kv * slots_ * s_.padded);
        query_ = padded_values(positions_.size() * static_cast<size_t>(s_.n_heads), 1, 1.5f);
        keys_ = padded_values(cache / static_cast<size_t>(s_.padded), 2, 1.5f);
        values_ = padded_values(cache / static_cast<size_t>(s_.padded), 3, 1);
        // what no sequence owns must not matter, even if it is not a number
        for (size_t i = next; i < order.size(); i++) {
            for (int h = 0; h < s_.n_kv; h++) {
                const auto at = static_cast<size_t>((h * slots_ + order[i]) * s_.padded);
                std::fill_n(keys_.begin() + static_cast<std::ptrdiff_t>(at), s_.padded, NAN);
                std::fill_n(values_.begin() + static_cast<std::ptrdiff_t>(at), s_.padded, NAN);
            }
        }
    }

    // The new tokens come as they leave the product: not rotated (by angle zero here), keys and values not in
    // the cache; with `bias` less that.
    void check_decode(int splits, bool with_bias = false) {
        const auto sequences = static_cast<int>(contexts_.size());
        const int group = s_.n_heads / s_.n_kv;
        const int qkv_stride = (s_.n_heads + 2 * s_.n_kv) * s_.head_dim;
        std::vector<float> qkv;
        std::vector<uint16_t> keys = as_bf16(keys_), values = as_bf16(values_);
        const std::vector<uint16_t> all_keys = keys, all_values = values;
        std::vector<int> slots;
        for (int i = 0; i < sequences; i++) {
            slots.push_back(table_[static_cast<size_t>(i * longest_ + contexts_[static_cast<size_t>(i)] - 1)]);
            for (int head = 0; head < s_.n_heads; head++) {
                const float* from = query_.data() + (i * s_.n_heads + head) * s_.padded;
                qkv.insert(qkv.end(), from, from + s_.head_dim);
            }
            for (auto* cache : {&keys_, &values_}) {
                for (int h = 0; h < s_.n_kv; h++) {
                    const auto at = static_cast<size_t>((h * slots_ + slots.back()) * s_.padded);
                    qkv.insert(qkv.end(), cache->begin() + static_cast<std::ptrdiff_t>(at),
                               cache->begin() + static_cast<std::ptrdiff_t>(at) + s_.head_dim);
                    auto& gpu = cache == &keys_ ? keys : values;
                    std::fill_n(gpu.begin() + static_cast<std::ptrdiff_t>(at), s_.padded, uint16_t{0x7fc0});
                }
            }
        }
        std::vector<float> bias = random_values(static_cast<size_t>(qkv_stride), 9);
        for (size_t i = 0; with_bias && i < qkv.size(); i++) {
            qkv[i] -= bias[i % bias.size()];
        }
        std::vector<float> rotation;
        for (int i = 0; i < sequences * s_.head_dim; i++) {
            rotation.push_back(i % s_.head_dim < s_.head_dim / 2 ? 1.0f : 0.0f);
        }
        const GpuArray<uint16_t> gpu_keys(keys), gpu_values(values);
        const GpuArray<float> gpu_qkv(qkv), gpu_bias(bias), gpu_rotation(rotation);
        const GpuArray<int> gpu_slots(slots);
        const GpuArray<float> partial(contexts_.size() * static_cast<size_t>(s_.n_heads * splits * s_.padded));
        const GpuArray<float> ml(contexts_.size() * static_cast<size_t>(s_.n_heads * splits * 2));
        const GpuArray<unsigned> tickets(
            std::vector<unsigned>(contexts_.size() * static_cast<size_t>(s_.n_kv * head_parts(group)), 0));
        QkvArgs token{};
        token.qkv = gpu_qkv.get();
        token.bias = with_bias ? gpu_bias.get() : nullptr;
        token.rotation = gpu_rotation.get();
        token.slots = gpu_slots.get();
        token.keys = gpu_keys.get();
        token.values = gpu_values.get();
        token.qkv_stride = qkv_stride;
        token.n_heads = s_.n_heads;
        token.n_kv_heads = s_.n_kv;
        token.head_dim = s_.head_dim;
        token.head_dim_padded = s_.padded;
        token.kv_slots = slots_;
        check([&](AttentionArgs args) {
            args.query = nullptr;
            args.keys = gpu_keys.get();
            args.values = gpu_values.get();
            launch_decode_attention({args, token, partial.get(), ml.get(), tickets.get(), splits}, sequences,
                                    test_stream().get());
        });
        EXPECT_EQ(gpu_keys.values(), all_keys) << "the cache afterwards";
        EXPECT_EQ(gpu_values.values(), all_values);
        for (const unsigned ticket : tickets.values()) {
            EXPECT_EQ(ticket, 0u);
        }
    }

    void check_prefill(int splits = 1) {
        Step step;
        step.n_seq = static_cast<int>(contexts_.size());
        step.n_tok = static_cast<int>(positions_.size());
        step.pos = positions_.data();
        step.q_start = q_start_.data();
        std::vector<PrefillTile> tiles;
        plan_prefill(step, s_.n_heads, s_.n_kv, tiles);
        const GpuArray<PrefillTile> gpu_tiles(tiles);
        const size_t parts = tiles.size() * static_cast<size_t>(s_.n_kv * splits);
        const GpuArray<float> partial(parts * static_cast<size_t>(kQueryTile * s_.padded)), ml(parts * kQueryTile * 2);
        const GpuArray<unsigned> tickets(std::vector<unsigned>(tiles.size() * static_cast<size_t>(s_.n_kv), 0));
        prepare_kernels(false);
        check([&](const AttentionArgs& args) {
            launch_prefill_attention({args, gpu_tiles.get(), partial.get(), ml.get(), tickets.get(), splits},
                                     static_cast<int>(tiles.size()), test_stream().get());
        });
        for (const unsigned ticket : tickets.values()) {
            EXPECT_EQ(ticket, 0u);
        }
    }

  private:
    std::vector<float> padded_values(size_t rows, uint64_t seed, float scale) const {
        std::vector<float> out = random_values(rows * static_cast<size_t>(s_.padded), seed, scale);
        for (size_t i = 0; i < out.size(); i++) {
            out[i] = static_cast<int>(i % static_cast<size_t>(s_.padded)) < s_.head_dim ? out[i] : 0;
        }
        return out;
    }

    template <typename Launch>
    void check(Launch&& launch) {
        const int stride = static_cast<int>(round_up(int64_t{s_.n_heads} * s_.head_dim, kRowPad));
        const GpuArray<uint16_t> query(as_bf16(query_)), keys(as_bf16(keys_)), values(as_bf16(values_));
        const GpuArray<uint16_t> out(positions_.size() * static_cast<size_t>(stride));
        const GpuArray<int> positions(positions_), table(table_);
        AttentionArgs args{};
        args.query = query.get();
        args.keys = keys.get();
        args.values = values.get();
        args.out = out.get();
        args.positions = positions.get();
        args.table = table.get();
        args.table_stride = longest_;
        args.n_heads = s_.n_heads;
        args.n_kv_heads = s_.n_kv;
        args.head_dim = s_.head_dim;
        args.head_dim_padded = s_.padded;
        args.out_stride = stride;
        args.kv_slots = slots_;
        args.window = s_.window;
        args.scale = 1.0f / std::sqrt(static_cast<float>(s_.head_dim));
        launch(args);
        const std::vector<float> got = as_f32(out.values());
        const int group = s_.n_heads / s_.n_kv;
        for (size_t sequence = 0; sequence < contexts_.size(); sequence++) {
            for (int token = q_start_[sequence]; token < q_start_[sequence + 1]; token++) {
                for (int head = 0; head < s_.n_heads; head++) {
                    const std::vector<double> expected = reference(static_cast<int>(sequence), token, head, head / group);
                    for (int d = 0; d < s_.head_dim; d++) {
                        const float value = got[static_cast<size_t>(token * stride + head * s_.head_dim + d)];
                        ASSERT_NEAR(value, expected[static_cast<size_t>(d)], 0.02)
                            << "sequence " << sequence << " token " << token << " head " << head << " element " << d;
                    }
                }
            }
        }
    }

    std::vector<double> reference(int sequence, int token, int head, int kv_head) const {
        const int position = positions_[static_cast<size_t>(token)];
        const int first = s_.window > 0 ? std::max(0, position - s_.window + 1) : 0;
        const float* q = query_.data() + (token * s_.n_heads + head) * s_.padded;
        std::vector<double> scores;
        const auto row = [&](const std::vector<float>& from, int p) {
            const int slot = table_[static_cast<size_t>(sequence * longest_ + p)];
            return from.data() + (kv_head * slots_ + slot) * s_.padded;
        };
        double largest = -INFINITY;
        for (int p = first; p <= position; p++) {
            double dot = 0;
            for (int d = 0; d < s_.head_dim; d++) {
                dot += static_cast<double>(q[d]) * static_cast<double>(row(keys_, p)[d]);
            }
            scores.push_back(dot / std::sqrt(static_cast<double>(s_.head_dim)));
            largest = std::max(largest, scores.back());
        }
        double sum = 0;
        std::vector<double> out(static_cast<size_t>(s_.head_dim), 0);
        for (int p = first; p <= position; p++) {
            const double weight = std::exp(scores[static_cast<size_t>(p - first)] - largest);
            sum += weight;
            for (int d = 0; d < s_.head_dim; d++) {
                out[static_cast<size_t>(d)] += weight * static_cast<double>(row(values_, p)[d]);
            }
        }
        for (double& v : out) {
            v /= sum;
        }
        return out;
    }

    Shape s_;
    std::vector<int> contexts_, queries_, table_, positions_, q_start_;
    int longest_ = 0;
    int slots_ = 0;
    std::vector<float> query_, keys_, values_;
};

TEST(DecodeAttention, GroupsAndHeadDimensions) {
    for (const Shape& shape : {Shape{8, 2, 128, 128, 0}, Shape{7, 1, 64, 64, 0}, Shape{4, 4, 80, 128, 0},
                               Shape{6, 2, 24, 64, 0}, Shape{2, 1, 256, 256, 0}, Shape{12, 1, 128, 128, 0},
                               Shape{3, 3, 30, 64, 0}, Shape{4, 2, 90, 128, 0}, Shape{9, 1, 130, 256, 0}, Shape{5, 1, 254, 256, 0}}) {
        SCOPED_TRACE(shape.head_dim);
        Attention attention(shape, {1, 17, 150}, {1, 1, 1});
        for (const int splits : {1, 4, 7}) {
            SCOPED_TRACE(splits);
            attention.check_decode(splits, splits == 4);
        }
    }
}

TEST(DecodeAttention, LengthsAroundBlocksAndMoreSplitsThanPositions) {
    Attention attention({4, 2, 128, 128, 0}, {1, 2, 15, 16, 31, 32, 33, 64, 65, 511}, std::vector<int>(10, 1));
    for (const int splits : {1, 2, 8, 32}) {
        SCOPED_TRACE(splits);
        attention.check_decode(splits);
    }
}

TEST(DecodeAttention, SlidingWindow) {
    for (const int head_dim : {64, 128, 256}) {
        Attention attention({4, 2, head_dim, head_dim, 24}, {1, 23, 24, 25, 200}, std::vector<int>(5, 1));
        attention.check_decode(1);
        attention.check_decode(2);
    }
}

TEST(PrefillAttention, GroupsAndHeadDimensions) {
    for (const Shape& shape : {Shape{4, 1, 128, 128, 0}, Shape{7, 1, 64, 64, 0}, Shape{2, 2, 80, 128, 0},
                               Shape{3, 1, 16, 64, 0}, Shape{2, 1, 256, 256, 0}, Shape{2, 1, 30, 64, 0}, Shape{2, 2, 90, 128, 0},
                               Shape{2, 1, 130, 256, 0}, Shape{1, 1, 254, 256, 0}}) {
        SCOPED_TRACE(shape.head_dim);
        Attention attention(shape, {1, 40, 130}, {1, 40, 37});
        attention.check_prefill();
        attention.check_prefill(2);
    }
}

TEST(PrefillAttention, ChunksAtEveryPlaceOfATile) {
    Attention attention({2, 2, 64, 64, 0}, {64, 65, 63, 128, 200, 70}, {64, 65, 1, 63, 3, 70});
    attention.check_prefill();
}

TEST(PrefillAttention, SplitContextsAndMoreSplitsThanTheyHave) {
    Attention attention({4, 2, 128, 128, 0}, {1, 63, 64, 65, 128, 129, 700}, {1, 2, 1, 3, 1, 20, 5});
    for (const int splits : {2, 3, 11, 32}) {
        SCOPED_TRACE(splits);
        attention.check_prefill(splits);
    }
    for (const int head_dim : {64, 256}) {
        Attention({2, 1, head_dim, head_dim, 0}, {65, 400}, {3, 5}).check_prefill(6);
    }
}

TEST(PrefillAttention, SlidingWindow) {
    for (const int window : {1, 24, 70}) {
        Attention attention({4, 2, 64, 64, window}, {20, 100, 300}, {20, 100, 30});
        attention.check_prefill();
        attention.check_prefill(3);
    }
    for (const int head_dim : {128, 256}) {
        Attention({2, 1, head_dim, head_dim, 24}, {20, 150}, {20, 30}).check_prefill();
    }
}

}  // namespace
}  // namespace llm::engine::cuda
