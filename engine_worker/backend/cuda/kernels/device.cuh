// What the kernels are written with: conversions, warp and block reductions, tensor-core and asynchronous-copy
// instructions. Compiled by nvcc for GPUs, and by a C++ compiler against an emulation that tests use
// (LLM_CUDA_EMULATION), where the same kernels run on the host.
#pragma once

#include <cstdint>

#if defined(LLM_CUDA_EMULATION)
#include "tests/support/cuda_emulation/device.hpp"
#else
#include <cuda_runtime.h>
#endif

namespace llm::engine::cuda {

inline constexpr int kWarpSize = 32;
inline constexpr uint32_t kFullMask = 0xffffffffu;

struct alignas(16) Vec16 {  // 16 bytes: what one load or store moves
    uint32_t word[4];
};

// ---- bf16 -------------------------------------------------------------------------------------------------
// Two values in a word, the first in the low half.

__device__ __forceinline__ float bf16_low(uint32_t pair) {
    return __uint_as_float(pair << 16);
}
__device__ __forceinline__ float bf16_high(uint32_t pair) {
    return __uint_as_float(pair & 0xffff0000u);
}
__device__ __forceinline__ float bf16_value(uint16_t bits) {
    return __uint_as_float(static_cast<uint32_t>(bits) << 16);
}

// Rounds to nearest even.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
#if defined(LLM_CUDA_EMULATION)
    return emulated_pack_bf16(low, high);
#else
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}
__device__ __forceinline__ uint16_t to_bf16(float value) {
    return static_cast<uint16_t>(pack_bf16(value, 0.0f));
}

// 2^value, some units in the last place beside; below 2^-126 it is 0. exp2f() would take three more instructions, for those.
__device__ __forceinline__ float exp2_of(float value) {
#if defined(LLM_CUDA_EMULATION)
    return exp2f(value);
#else
    float out;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(value));
    return out;
#endif
}

// Four e4m3 values to two pairs of bf16, exact. An e4m3's bits, put where a bf16 has them, make a number that is
// 2^120 times too small, subnormals included; the product puts that right.
__device__ __forceinline__ void e4m3_to_bf16(uint32_t four, uint32_t& first, uint32_t& second) {
    const uint32_t low = __byte_perm(four, 0, 0x1404);   // bytes 0 and 1 into the upper bytes of the halves
    const uint32_t high = __byte_perm(four, 0, 0x3424);  // bytes 2 and 3
    const uint32_t a = (low & 0x80008000u) | ((low & 0x7f007f00u) >> 4);
    const uint32_t b = (high & 0x80008000u) | ((high & 0x7f007f00u) >> 4);
#if defined(LLM_CUDA_EMULATION)
    first = pack_bf16(bf16_low(a) * 0x1p120f, bf16_high(a) * 0x1p120f);
    second = pack_bf16(bf16_low(b) * 0x1p120f, bf16_high(b) * 0x1p120f);
#else
    constexpr uint32_t kFactor = 0x7b807b80u;    // 2^120 twice
    constexpr uint32_t kMinusZero = 0x80008000u;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(first) : "r"(a), "r"(kFactor), "r"(kMinusZero));
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(second) : "r"(b), "r"(kFactor), "r"(kMinusZero));
#endif
}

// ---- Memory -----------------------------------------------------------------------------------------------

__device__ __forceinline__ Vec16 load16(const void* address) {
#if defined(LLM_CUDA_EMULATION)
    llm::emulation::require_aligned(address, sizeof(Vec16));
#endif
    return *static_cast<const Vec16*>(address);
}
__device__ __forceinline__ void store16(void* address, const Vec16& value) {
#if defined(LLM_CUDA_EMULATION)
    llm::emulation::require_aligned(address, sizeof(Vec16));
#endif
    *static_cast<Vec16*>(address) = value;
}

__device__ __forceinline__ void store4(void* address, uint32_t value) {
#if defined(LLM_CUDA_EMULATION)
    llm::emulation::require_aligned(address, sizeof value);
#endif
    *static_cast<uint32_t*>(address) = value;
}

__device__ __forceinline__ void store8(void* address, uint32_t first, uint32_t second) {
#if defined(LLM_CUDA_EMULATION)
    llm::emulation::require_aligned(address, 8);
    static_cast<uint32_t*>(address)[0] = first;
    static_cast<uint32_t*>(address)[1] = second;
#else
    *static_cast<uint2*>(address) = make_uint2(first, second);
#endif
}

// 16 bytes that are read once (weights): past the first-level cache, so that activations stay there. Not `.nc`: the assembler
// moves those loads behind griddepcontrol.wait, and nothing would be under way before it.
__device__ __forceinline__ Vec16 load16_once(const void* address) {
#if defined(LLM_CUDA_EMULATION)
    return load16(address);
#else
    Vec16 v;
    asm volatile("ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
                 : "l"(address));
    return v;
#endif
}

// The same if `wanted`; else `v` stays as it is. Without a branch, around which nvcc would not load into the registers that are used.
__device__ __forceinline__ void load16_once_if(bool wanted, const void* address, Vec16& v) {
#if defined(LLM_CUDA_EMULATION)
    v = wanted ? load16(address) : v;
#else
    asm volatile(
        "{\n\t.reg .pred wanted;\n\tsetp.ne.s32 wanted, %5, 0;\n\t"
        "@wanted ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];\n\t}"
        : "+r"(v.word[0]), "+r"(v.word[1]), "+r"(v.word[2]), "+r"(v.word[3])
        : "l"(address), "r"(wanted ? 1 : 0));
#endif
}

// 16 bytes that another block of the same launch wrote: from the second-level cache.
__device__ __forceinline__ Vec16 load16_shared_by_blocks(const void* address) {
#if defined(LLM_CUDA_EMULATION)
    return load16(address);
#else
    Vec16 v;
    asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
                 : "l"(address)
                 : "memory");
    return v;
#endif
}

// 16 bytes for another block of the same launch: to the second-level cache.
__device__ __forceinline__ void store16_shared_by_blocks(void* address, const Vec16& value) {
#if defined(LLM_CUDA_EMULATION)
    store16(address, value);
#else
    asm volatile("st.global.cg.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(value.word[0]), "r"(value.word[1]),
                 "r"(value.word[2]), "r"(value.word[3])
                 : "memory");
#endif
}

// store16() to shared memory, as one access for certain: of values that were floats nvcc makes four of some.
__device__ __forceinline__ void store16_to_shared(void* shared, const Vec16& value) {
#if defined(LLM_CUDA_EMULATION)
    store16(shared, value);
#else
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(value.word[0]), "r"(value.word[1]),
                 "r"(value.word[2]), "r"(value.word[3])
                 : "memory");
#endif
}

// Hides where a pointer came from: in a loop it is then advanced, as written, and not computed anew from what it began as.
template <typename T>
__device__ __forceinline__ void advance(T*& pointer, int count) {
    pointer += count;
#if !defined(LLM_CUDA_EMULATION)
    asm volatile("" : "+l"(pointer));
#endif
}

// Start of the block's dynamic shared memory, 16-byte aligned.
__device__ __forceinline__ unsigned char* shared_bytes() {
#if defined(LLM_CUDA_EMULATION)
    return static_cast<unsigned char*>(llm::emulation::dynamic_shared());
#else
    extern __shared__ __align__(16) unsigned char llm_shared[];
    return llm_shared;
#endif
}

// 16 bytes from global to shared memory, in the background; zeros if not `valid` (the source is then not read).
__device__ __forceinline__ void async_copy16(void* shared, const void* global, bool valid) {
#if defined(LLM_CUDA_EMULATION)
    llm::emulation::async_copy(shared, global, 16, !valid);
#else
    const auto target = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(global), "r"(bytes));
#endif
}
__device__ __forceinline__ void async_commit() {
#if defined(LLM_CUDA_EMULATION)
    llm::emulation::async_commit();
#else
    asm volatile("cp.async.commit_group;");
#endif
}
// Until at most `kLeft` of this thread's groups are under way.
template <int kLeft>
__device__ __forceinline__ void async_wait() {
#if defined(LLM_CUDA_EMULATION)
    llm::emulation::async_wait(kLeft);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
#endif
}

// ---- Tensor cores -----------------------------------------------------------------------------------------
// Fragments as in the PTX manual, "Matrix fragments for mma.m16n8k16": lane 4g + t holds of A the
// rows g and g + 8, of B and the sums the columns g, or 2t and 2t + 1.

// sum += A (16 x 16) * B (16 x 8), bf16 with f32 sums.
__device__ __forceinline__ void mma_bf16(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if defined(LLM_CUDA_EMULATION)
    emulated_mma(sum, a, b0, b1);
#else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// Four 8 x 8 matrices of 16-bit values from shared memory; lane i gives the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], const void* row) {
#if defined(LLM_CUDA_EMULATION)
    emulated_load_matrices(out, row, false);
#else
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
#endif
}
// The same, each matrix transposed.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
#if defined(LLM_CUDA_EMULATION)
    emulated_load_matrices(out, row, true);
#else
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
#endif
}

// ---- Order of launches ------------------------------------------------------------------------------------
// A launch may begin while the one before it in the stream still runs (programmatic dependent launch, compute
// capability 9.0). Every kernel calls begin_launch() in all its threads, once, before it touches what kernels write:
// nothing but weights, the host's data and what earlier steps left may be read before it, and nothing written. The one
// after may begin when all blocks have come that far, so it never overlaps with more than this one.
__device__ __forceinline__ void begin_launch() {
#if defined(LLM_CUDA_EMULATION)
    llm::emulation::wait_for_launch_before();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Orders what this thread wrote or read before with what it does after, for the whole GPU; with barriers around it, what its block did.
__device__ __forceinline__ void fence_gpu() {
#if !defined(LLM_CUDA_EMULATION)
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
#endif
}

// For blocks that split one sum: whether this one is the last of `blocks` to come here, so that it may read what the
// others wrote before. `ticket` is the block's shared memory; `counter` is zero before the first and after the last.
// All threads of the block must call.
__device__ __forceinline__ bool is_last_block(unsigned* counter, unsigned blocks, unsigned* ticket) {
    __syncthreads();
    if (threadIdx.x == 0) {
        fence_gpu();
        *ticket = atomicAdd(counter, 1u);
        fence_gpu();
        if (*ticket + 1 == blocks) {
            *counter = 0;
        }
    }
    __syncthreads();
    return *ticket + 1 == blocks;
}

// ---- Reductions -------------------------------------------------------------------------------------------

__device__ __forceinline__ float warp_sum(float value) {
    for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
        value += __shfl_xor_sync(kFullMask, value, offset);
    }
    return value;
}

struct Add {
    template <typename T>
    __device__ __forceinline__ T operator()(T a, T b) const {
        return a + b;
    }
};
struct Max {
    template <typename T>
    __device__ __forceinline__ T operator()(T a, T b) const {
        return a > b ? a : b;
    }
};

// The same value in every thread of the block. `scratch` holds 33 values; free again after the call. All threads
// must call; the number of threads is a multiple of 32.
template <typename T, typename Op>
__device__ __forceinline__ T block_reduce(T value, Op op, T* scratch) {
    for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
        value = op(value, __shfl_xor_sync(kFullMask, value, offset));
    }
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int warps = static_cast<int>(blockDim.x) / kWarpSize;
    if (threadIdx.x % kWarpSize == 0) {
        scratch[warp] = value;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        T total = scratch[0];
        for (int i = 1; i < warps; i++) {
            total = op(total, scratch[i]);
        }
        scratch[32] = total;
    }
    __syncthreads();
    value = scratch[32];
    __syncthreads();
    return value;
}

}  // namespace llm::engine::cuda
