// Every kernel and its launcher: the one file that needs nvcc.
#include "engine_worker/backend/cuda/kernels/launch.hpp"

#include <stdexcept>
#include <string>
#include <utility>

#include "engine_worker/backend/cuda/kernels/decode_attention.cuh"
#include "engine_worker/backend/cuda/kernels/elementwise.cuh"
#include "engine_worker/backend/cuda/kernels/gemm.cuh"
#include "engine_worker/backend/cuda/kernels/gemv.cuh"
#include "engine_worker/backend/cuda/kernels/prefill_attention.cuh"
#include "engine_worker/backend/cuda/kernels/sample.cuh"

namespace llm::engine::cuda {
namespace {

void check(cudaError_t error, const char* kernel) {
    if (error != cudaSuccess) {
        throw std::runtime_error(std::string("the GPU cannot run ") + kernel + ": " + cudaGetErrorString(error));
    }
}

bool overlap_launches = false;

// The arguments are copied when the launch is made, also under emulation.
#if defined(LLM_CUDA_EMULATION)
template <typename Kernel, typename... Args>
void launch(const char* name, Kernel kernel, dim3 grid, unsigned threads, size_t shared, cudaStream_t stream,
            Args... args) {
    check(llm::emulation::enqueue_kernel(stream, reinterpret_cast<const void*>(kernel), {grid.x, grid.y, grid.z},
                                         {threads, 1, 1}, shared, overlap_launches, [=] { kernel(args...); }),
          name);
}
bool kernels_wait() {
    return true;
}
template <typename Kernel>
void allow_shared(Kernel kernel, int bytes) {
    check(llm::emulation::allow_shared(reinterpret_cast<const void*>(kernel), static_cast<size_t>(bytes)),
          "kernels that need more shared memory");
}
template <typename... Kernels>
void divide_alike(int, Kernels...) {}
#else
template <typename... Params, typename... Args>
void launch(const char* name, void (*kernel)(Params...), dim3 grid, unsigned threads, size_t shared,
            cudaStream_t stream, Args... args) {
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = overlap_launches ? 1 : 0;
    check(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...), name);
}
// Whether the kernels that this GPU runs wait for the launch before them: not those translated from the PTX of an older capability.
bool kernels_wait() {
    cudaFuncAttributes attributes{};
    check(cudaFuncGetAttributes(&attributes, rms_norm_kernel), "any kernel");
    return attributes.ptxVersion >= 90;
}
template <typename Kernel>
void allow_shared(Kernel kernel, int bytes) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "kernels that need more shared memory");
}
// How a multiprocessor divides its memory between shared memory and first-level cache is chosen for each kernel, by what it needs. One
// that runs blocks cannot be divided anew, so a launch begins beside the one before it only where both want the same: `percent` as
// shared memory, or the next larger size that there is.
template <typename... Kernels>
void divide_alike(int percent, Kernels... kernels) {
    for (const cudaError_t error : {cudaFuncSetAttribute(kernels, cudaFuncAttributePreferredSharedMemoryCarveout, percent)...}) {
        check(error, "kernels that divide its memory");
    }
}
#endif

unsigned blocks_for(int items, int per_block) {
    return static_cast<unsigned>((items + per_block - 1) / per_block);
}

}  // namespace

void launch_embed(const EmbedArgs& args, int rows, cudaStream_t stream) {
    launch("embed", embed_kernel, dim3(static_cast<unsigned>(rows)), 256, 0, stream, args);
}

void launch_rms_norm(const NormArgs& args, int rows, cudaStream_t stream) {
    launch("rms_norm", rms_norm_kernel, dim3(static_cast<unsigned>(rows)), 256, 0, stream, args);
}

void launch_rotate_and_store(const QkvArgs& args, uint16_t* query, int first, int tokens, cudaStream_t stream) {
    constexpr int kWarps = 8;
    const dim3 grid(static_cast<unsigned>(tokens), blocks_for(args.n_heads + 2 * args.n_kv_heads, kWarps));
    launch("rotate_and_store", rotate_and_store_kernel, grid, kWarps * kWarpSize, 0, stream, args, query, first);
}

void launch_silu_multiply(const uint16_t* in, int in_stride, uint16_t* out, int out_stride, int rows,
                          cudaStream_t stream) {
    const dim3 grid(static_cast<unsigned>(rows), blocks_for(out_stride, 256 * 8));
    launch("silu_multiply", silu_multiply_kernel, grid, 256, 0, stream, in, in_stride, out, out_stride);
}

void launch_bias_rows(const float* bias, float* y, int n, int y_stride, int rows, bool add, cudaStream_t stream) {
    const dim3 grid(static_cast<unsigned>(rows), blocks_for(n, 256 * 4));
    launch("bias_rows", bias_rows_kernel, grid, 256, 0, stream, bias, y, n, y_stride, add);
}

void launch_expand_e4m3(const uint8_t* in, const float* scale, int n, int k, uint16_t* out, cudaStream_t stream) {
    launch("expand_e4m3", expand_e4m3_kernel, dim3(static_cast<unsigned>(n)), 256, 0, stream, in, scale, k, out);
}

void launch_update_table(int* table, const TableRange* ranges, const int* values, int n_ranges, cudaStream_t stream) {
    launch("update_table", update_table_kernel, dim3(static_cast<unsigned>(n_ranges)), 128, 0, stream, table, ranges,
           values);
}

void launch_gemv(const GemvArgs& args, const GemvShape& shape, cudaStream_t stream) {
    const int blocks = args.rows <= 8 ? 1 : args.rows <= 16 ? 2 : 4;
    const dim3 grid(static_cast<unsigned>(args.n / kGemvTile), static_cast<unsigned>(shape.splits));
    const auto threads = static_cast<unsigned>(shape.warps * kWarpSize);
    const int squares = args.norm.squares != nullptr ? args.rows * args.norm.parts : 0;
    const size_t shared = static_cast<size_t>(shape.warps * blocks * 4 * kWarpSize + squares) * sizeof(float);
    if (args.scale == nullptr) {
        const auto kernel = blocks == 1 ? gemv_kernel<1, false> : gemv_kernel<2, false>;
        launch("gemv", kernel, grid, threads, shared, stream, args);
    } else {
        const auto kernel = blocks == 1   ? gemv_kernel<1, true>
                            : blocks == 2 ? gemv_kernel<2, true>
                                          : gemv_kernel<4, true>;
        launch("gemv_e4m3", kernel, grid, threads, shared, stream, args);
    }
}

namespace {

template <int kBlocks, int kRowWarps, bool kE4m3>
struct GemmVariant {
    using Tile = GemmTile<kBlocks, kRowWarps, kE4m3>;
    static constexpr auto kernel = gemm_kernel<kBlocks, kRowWarps, kE4m3>;
    static void launch(const char* name, const GemvArgs& args, int splits, cudaStream_t stream) {
        const dim3 grid(blocks_for(args.rows, Tile::kRows), static_cast<unsigned>(splits), blocks_for(args.n, kGemmOutputs));
        cuda::launch(name, kernel, grid, Tile::kThreads, Tile::kSharedBytes, stream, args);
    }
    static void prepare() { allow_shared(kernel, Tile::kSharedBytes); }
};
using Gemm32 = GemmVariant<4, 1, false>;
using Gemm64 = GemmVariant<4, 2, false>;
using Gemm64FewWarps = GemmVariant<8, 1, false>;
using GemmE4m3 = GemmVariant<8, 1, true>;

}  // namespace

void launch_gemm(const GemvArgs& args, const GemmCut& cut, cudaStream_t stream) {
    if (args.scale != nullptr) {
        GemmE4m3::launch("gemm_e4m3", args, cut.splits, stream);
    } else if (gemm_block_rows(args.rows, 2) == Gemm32::Tile::kRows) {
        Gemm32::launch("gemm", args, cut.splits, stream);
    } else if (cut.few_warps) {
        Gemm64FewWarps::launch("gemm", args, cut.splits, stream);
    } else {
        Gemm64::launch("gemm", args, cut.splits, stream);
    }
}

void launch_decode_attention(const DecodeArgs& args, int sequences, cudaStream_t stream) {
    const AttentionArgs& a = args.attention;
    const int group = a.n_heads / a.n_kv_heads;
    const dim3 grid(static_cast<unsigned>(args.splits), static_cast<unsigned>(a.n_kv_heads * head_parts(group)),
                    static_cast<unsigned>(sequences));
    const auto kernel = a.head_dim_padded == 64    ? decode_attention_kernel<64>
                        : a.head_dim_padded == 128 ? decode_attention_kernel<128>
                                                   : decode_attention_kernel<256>;
    launch("decode_attention", kernel, grid, kDecodeWarps * kWarpSize,
           DecodeShared::bytes(group < kMaxGroup ? group : kMaxGroup, a.head_dim_padded), stream, args);
}

void launch_prefill_attention(const PrefillArgs& args, int n_tiles, cudaStream_t stream) {
    const AttentionArgs& a = args.attention;
    const dim3 grid(static_cast<unsigned>(n_tiles), static_cast<unsigned>(a.n_kv_heads), static_cast<unsigned>(args.splits));
    constexpr unsigned kThreads = kPrefillWarps * kWarpSize;
    const auto start = [&](auto kernel, int shared) {
        launch("prefill_attention", kernel, grid, kThreads, static_cast<size_t>(shared), stream, args);
    };
    if (a.head_dim_padded == 64) {
        start(prefill_attention_kernel<64>, PrefillShape<64>::kSharedBytes);
    } else if (a.head_dim_padded == 128) {
        start(prefill_attention_kernel<128>, PrefillShape<128>::kSharedBytes);
    } else {
        start(prefill_attention_kernel<256>, PrefillShape<256>::kSharedBytes);
    }
}

void launch_sample(const SampleArgs& args, int rows, int threads, cudaStream_t stream) {
    const auto start = [&](const char* name, auto kernel, dim3 grid) {
        launch(name, kernel, grid, static_cast<unsigned>(threads), sizeof(SampleShared), stream, args);
    };
    if (args.splits == 1) {
        start("sample", sample_kernel, dim3(static_cast<unsigned>(rows)));
    } else {
        const dim3 grid(static_cast<unsigned>(args.splits), static_cast<unsigned>(rows));
        start("sample_best", sample_best_kernel, grid);
        start("sample_draw", sample_draw_kernel, grid);
    }
}

const char* built_capabilities() {
#if defined(LLM_CUDA_CAPABILITIES)
    return LLM_CUDA_CAPABILITIES;
#else
    return "emulated";
#endif
}

void prepare_kernels(bool overlap) {
    overlap_launches = overlap && kernels_wait();
    Gemm32::prepare();
    Gemm64::prepare();
    Gemm64FewWarps::prepare();
    GemmE4m3::prepare();
    allow_shared(gemv_kernel<1, false>, kGemvMostShared);
    allow_shared(gemv_kernel<2, false>, kGemvMostShared);
    allow_shared(gemv_kernel<1, true>, kGemvMostShared);
    allow_shared(gemv_kernel<2, true>, kGemvMostShared);
    allow_shared(gemv_kernel<4, true>, kGemvMostShared);
    allow_shared(prefill_attention_kernel<64>, PrefillShape<64>::kSharedBytes);
    allow_shared(prefill_attention_kernel<128>, PrefillShape<128>::kSharedBytes);
    allow_shared(prefill_attention_kernel<256>, PrefillShape<256>::kSharedBytes);
    // Steps of few rows: 100 KB on most GPUs, enough for all blocks of attention that registers allow; activations are read from the rest.
    divide_alike(43, update_table_kernel, embed_kernel, gemv_kernel<1, false>, gemv_kernel<2, false>, gemv_kernel<1, true>,
                 gemv_kernel<2, true>, gemv_kernel<4, true>, decode_attention_kernel<64>, decode_attention_kernel<128>,
                 decode_attention_kernel<256>, sample_kernel, sample_best_kernel, sample_draw_kernel);
    divide_alike(100, rms_norm_kernel, Gemm32::kernel, Gemm64::kernel, Gemm64FewWarps::kernel, GemmE4m3::kernel);
}

bool stop_overlap() {
    return std::exchange(overlap_launches, false);
}

}  // namespace llm::engine::cuda
