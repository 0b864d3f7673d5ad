#include "bench/engine/gpu_products.hpp"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <vector>

#include "engine_worker/backend/cuda/gemm.hpp"
#include "engine_worker/backend/cuda/kernels/launch.hpp"
#include "engine_worker/backend/cuda/plan.hpp"
#include "tests/support/gpu_array.hpp"

namespace llm::bench {
namespace {

using namespace llm::engine::cuda;
using llm::testing::GpuArray;

constexpr int kCopies = 4;   // of each matrix, by turns: none is in the cache when its turn comes
constexpr int kRounds = 24;  // the best of three such

// Milliseconds of one product, launched one after the other behind others that keep the GPU busy meanwhile.
double time_of(const Stream& stream, const std::vector<const uint16_t*>& weights,
               const std::function<void(const uint16_t* w)>& product) {
    Event start(true), end(true);
    float best = 0;
    for (int attempt = 0; attempt < 3; attempt++) {
        for (size_t i = 0; i < 2 * kRounds; i++) {
            if (i == kRounds) {
                start.record(stream);
            }
            product(weights[i % weights.size()]);
        }
        end.record(stream);
        end.synchronize();
        const float ms = Event::elapsed(start, end) / kRounds;
        best = attempt == 0 ? ms : std::min(best, ms);
    }
    return static_cast<double>(best);
}

}  // namespace

void print_products(const DeviceInfo& device, double ceiling) {
    const Stream& stream = llm::testing::test_stream();
    struct {
        const char* name;
        int n, k;
        GemvEpilogue epilogue;
    } const shapes[] = {{"qkv", 6144, 4096, GemvEpilogue::kStore},
                        {"o", 4096, 4096, GemvEpilogue::kAdd},
                        {"gate_up", 28672, 4096, GemvEpilogue::kSwiglu},
                        {"down", 4096, 14336, GemvEpilogue::kAdd},
                        {"lm_head", 128256, 4096, GemvEpilogue::kStore}};
    const DeviceMemory workspace(Gemm::kWorkspace);
    Gemm gemm(stream, workspace.data(), device.name, "");
    std::printf("products one by one, GB/s of weights as stored (%% of reading memory): our kernel, cuBLASLt\n");
    for (const auto& shape : shapes) {
        const size_t n = static_cast<size_t>(shape.n), k = static_cast<size_t>(shape.k);
        constexpr size_t kRows = 256;
        // Weights are the same in all copies: what is in memory matters, not what it says. No e4m3 is NaN.
        std::vector<uint16_t> some(n * k);
        const std::vector<uint16_t> random = llm::testing::as_bf16(llm::testing::random_values(size_t{1} << 16, 1, 0.1f));
        for (size_t i = 0; i < some.size(); i++) {
            some[i] = static_cast<uint16_t>(random[i % random.size()] & 0xf7f7);
        }
        std::vector<GpuArray<uint16_t>> copies;
        for (int i = 0; i < kCopies; i++) {
            copies.emplace_back(some);
        }
        const GpuArray<uint16_t> x(llm::testing::as_bf16(llm::testing::random_values(kRows * k, 2)));
        const GpuArray<uint16_t> expanded(some);
        const GpuArray<float> y(std::vector<float>(kRows * n, 0.0f)), scale(std::vector<float>(n, 1.0f));
        const GpuArray<uint16_t> gate_up(kRows * n), half(kRows * n / 2);
        const bool swiglu = shape.epilogue == GemvEpilogue::kSwiglu;
        for (const int bytes : {2, 1}) {
            std::vector<const uint16_t*> turns;
            for (const auto& copy : copies) {
                turns.push_back(copy.get());
                if (bytes == 1) {
                    turns.push_back(copy.get() + n * k / 2);  // two to a copy, or all together would fit into the cache
                }
            }
            const GpuArray<float> partial(std::max<size_t>(1, gemm_partial_floats(shape.n, shape.k, bytes, device.multiprocessors)));
            const GpuArray<unsigned> tickets(
                std::vector<unsigned>(static_cast<size_t>(gemm_blocks(shape.n, kGemmMaxRows, bytes)), 0));
            for (const int rows :
                 bytes == 2 ? std::vector<int>{24, 32, 48, 64, 128, 256} : std::vector<int>{64, 128, 256}) {
                GemvArgs args{};
                args.scale = bytes == 1 ? scale.get() : nullptr;
                args.x = x.get();
                args.y = swiglu ? static_cast<void*>(half.get()) : y.get();
                args.partial = partial.get();
                args.tickets = tickets.get();
                args.n = shape.n;
                args.k = shape.k;
                args.rows = rows;
                args.y_stride = swiglu ? shape.n / 2 : shape.n;
                args.epilogue = shape.epilogue;
                // As tuning does: whichever cut is fastest.
                GemmCut fastest;
                double own = 0;
                for (int choice = 0; choice < gemm_choices(shape.n, shape.k, rows, bytes, device.multiprocessors); choice++) {
                    const GemmCut cut = plan_gemm(shape.n, shape.k, rows, bytes, device.multiprocessors, choice);
                    const double ms = time_of(stream, turns, [&](const uint16_t* w) {
                        args.w = w;
                        launch_gemm(args, cut, stream.get());
                    });
                    if (choice == 0 || ms < own) {
                        own = ms;
                        fastest = cut;
                    }
                }
                GemmCall call;
                call.w = bytes == 1 ? expanded.get() : turns[0];
                call.x = x.get();
                call.y = swiglu ? static_cast<void*>(gate_up.get()) : y.get();
                call.n = shape.n;
                call.k = shape.k;
                call.rows = rows;
                call.y_stride = shape.n;
                call.bf16_out = swiglu;
                call.add = shape.epilogue == GemvEpilogue::kAdd;
                gemm.tune(call, bytes == 1 ? std::vector<const uint16_t*>() : turns);
                const double library = time_of(stream, turns, [&](const uint16_t* w) {
                    if (bytes == 1) {
                        launch_expand_e4m3(reinterpret_cast<const uint8_t*>(w), scale.get(), shape.n, shape.k, expanded.get(),
                                           stream.get());
                    } else {
                        call.w = w;
                    }
                    gemm.run(call);
                    if (swiglu) {
                        launch_silu_multiply(gate_up.get(), shape.n, half.get(), shape.n / 2, rows, stream.get());
                    }
                });
                const double size = static_cast<double>(n * k) * bytes;
                const auto rate = [&](double ms) { return size / ms * 1e3; };
                std::printf("    %-8s %s %4d rows  %6.0f (%3.0f %%)  %6.0f (%3.0f %%)   %d splits%s\n", shape.name,
                            bytes == 1 ? "e4m3" : "bf16", rows, rate(own) / 1e9, 100 * rate(own) / ceiling, rate(library) / 1e9,
                            100 * rate(library) / ceiling, fastest.splits,
                            fastest.few_warps ? ", 4 warps" : "");
            }
        }
    }
}

}  // namespace llm::bench
