// What runs the PTX of the kernels (support/ptx): single instructions against the PTX manual's text, and what must end a program. Whether
// fragments of matrices lie where they should shows where kernels run (cuda_ptx_test).
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include "tests/support/cuda_emulation/emulation.hpp"
#include "tests/support/ptx/block_order.hpp"
#include "tests/support/ptx/machine.hpp"

namespace llm::ptx {
namespace {

// A kernel k(u64 out) with registers %r<16>, %rd<16>, %f<16>, %fd<4>, %p<4>, 64 bytes of shared memory `s`, and out in %rd15.
std::string kernel_text(const std::string& body) {
    return ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k(\n .param .u64 out\n)\n{\n"
           " .reg .pred %p<4>;\n .reg .b32 %r<16>;\n .reg .b64 %rd<16>;\n .reg .f32 %f<16>;\n .reg .f64 %fd<4>;\n .shared .align 16 .b8 s[64];\n"
           " ld.param.u64 %rd15, [out];\n" +
           body + "\n ret;\n}\n";
}

// Runs it, with one block of one warp unless told otherwise, on `words` words of device memory, which are zeros before.
std::vector<uint32_t> run(const std::string& body, size_t words = 32, uint32_t threads = 32, uint32_t blocks = 1, uint64_t launches = 1) {
    const auto module = read_module(kernel_text(body), "test");
    const Kernel& kernel = module->kernels.at("k");
    void* memory = nullptr;
    EXPECT_EQ(cudaMalloc(&memory, words * 4), cudaSuccess);
    std::memset(memory, 0, words * 4);
    const auto address = reinterpret_cast<uint64_t>(memory);
    std::vector<std::byte> parameters(8);
    std::memcpy(parameters.data(), &address, 8);
    for (uint64_t launch = 1; launch <= launches; launch++) {
        emulation::run_grid({blocks, 1, 1}, {threads, 1, 1}, kernel.static_shared,
                            [&] { run_thread(*module, kernel, parameters.data(), kernel.static_shared, launch); });
    }
    std::vector<uint32_t> out(words);
    std::memcpy(out.data(), memory, words * 4);
    cudaFree(memory);
    return out;
}

// What the instructions leave in %r0; every lane's, with `lanes`.
std::vector<uint32_t> lanes(const std::string& instructions) {
    return run(instructions +
               "\n mov.u32 %r15, %tid.x;\n mul.wide.u32 %rd14, %r15, 4;\n add.s64 %rd14, %rd15, %rd14;\n st.global.u32 [%rd14], %r0;");
}
uint32_t word(const std::string& instructions) {
    return run(instructions + "\n st.global.u32 [%rd15], %r0;", 1, 1)[0];
}
float number(const std::string& instructions) {
    return std::bit_cast<float>(run(instructions + "\n st.global.f32 [%rd15], %f0;", 1, 1)[0]);
}

TEST(PtxInstructions, Integers) {
    EXPECT_EQ(word("prmt.b32 %r0, 0x33221100, 0x77665544, 0x7410;"), 0x77441100u);
    EXPECT_EQ(word("prmt.b32 %r0, 0x00008000, 0, 0x09c1;"), 0x00ff0080u) << "a selector of 8 and more repeats the sign";
    EXPECT_EQ(word("mov.u32 %r1, 40; shl.b32 %r0, 1, %r1;"), 0u) << "amounts are not taken modulo 32";
    EXPECT_EQ(word("mov.u32 %r1, 40; mov.u32 %r2, -8; shr.s32 %r0, %r2, %r1;"), 0xffffffffu);
    EXPECT_EQ(word("mov.u32 %r2, -8; shr.u32 %r0, %r2, 28;"), 15u);
    EXPECT_EQ(word("mul.hi.u32 %r0, 0x80000000, 6;"), 3u);
    EXPECT_EQ(word("bfind.shiftamt.u32 %r0, 0x00010000;"), 15u);
    EXPECT_EQ(word("brev.b32 %r0, 0x80000001;"), 0x80000001u);
    EXPECT_EQ(word("mov.u32 %r1, -7; div.s32 %r0, %r1, 2;"), static_cast<uint32_t>(-3));
    EXPECT_EQ(word("mov.u64 %rd1, 0xff; mov.u64 %rd2, 0; bfi.b64 %rd0, %rd1, %rd2, 60, 8; shr.u64 %rd0, %rd0, 32; cvt.u32.u64 %r0, %rd0;"),
              0xf0000000u);
    EXPECT_EQ(word("mov.b64 %rd0, {7, 9}; mov.b64 {%r1, %r0}, %rd0;"), 9u) << "the last of a vector is the highest";
}

TEST(PtxInstructions, Numbers) {
    EXPECT_EQ(word("mov.f32 %f1, 0f3F800000; mov.f32 %f2, 0f40000000; cvt.rn.bf16x2.f32 %r0, %f1, %f2;"), 0x3f804000u) << "the first is the upper";
    EXPECT_EQ(word("mov.f32 %f1, 0f3F808000; mov.f32 %f2, 0f3F818000; cvt.rn.bf16x2.f32 %r0, %f1, %f2;"), 0x3f803f82u) << "ties go to even";
    EXPECT_EQ(word("mov.b32 %r1, 0x40003f80; mov.b32 %r2, 0x40404040; mov.b32 %r3, 0x80003f80; fma.rn.bf16x2 %r0, %r1, %r2, %r3;"),
              0x40c04080u);
    EXPECT_EQ(word("mov.f32 %f1, 0fBF800000; cvt.rzi.u64.f32 %rd0, %f1; cvt.u32.u64 %r0, %rd0;"), 0u) << "what does not fit becomes the nearest";
    EXPECT_EQ(word("mov.f32 %f1, 0f7FC00000; cvt.rzi.s32.f32 %r0, %f1;"), 0u);
    EXPECT_EQ(word("mov.f32 %f1, 0f7FC00000; cvt.rzi.u64.f32 %rd0, %f1; shr.u64 %rd0, %rd0, 32; cvt.u32.u64 %r0, %rd0;"), 0x80000000u);
    EXPECT_EQ(word("mov.f32 %f1, 0f7FC00000; cvt.f64.f32 %fd1, %f1; cvt.rni.s32.f64 %r0, %fd1;"), 0x80000000u);
    EXPECT_EQ(word("mov.f32 %f1, 0f7F800000; sub.f32 %f0, %f1, %f1; mov.b32 %r0, %f0;"), 0x7fffffffu) << "the only NaN that arithmetic makes";
    EXPECT_EQ(word("mov.f32 %f1, 0f7F800000; mov.f32 %f2, 0f7F000000; div.approx.f32 %f0, %f1, %f2; mov.b32 %r0, %f0;"), 0x7fffffffu)
        << "above 2^126 it divides by infinity";
    EXPECT_EQ(number("mov.f32 %f1, 0f40000000; mov.f32 %f2, 0f7F000000; div.approx.f32 %f0, %f1, %f2;"), 0.0f);
    EXPECT_EQ(word("mov.f32 %f1, 0f00000000; mov.f32 %f2, 0f80000000; max.f32 %f0, %f2, %f1; mov.b32 %r0, %f0;"), 0u);
    EXPECT_EQ(word("mov.f32 %f1, 0f00000000; mov.f32 %f2, 0f80000000; min.f32 %f0, %f1, %f2; mov.b32 %r0, %f0;"), 0x80000000u);
    EXPECT_EQ(word("mov.f32 %f1, 0f7FC00000; setp.ltu.f32 %p1, %f1, %f1; selp.b32 %r0, 1, 2, %p1;"), 1u);
    EXPECT_EQ(word("mov.f32 %f1, 0f7FC00000; setp.ne.f32 %p1, %f1, %f1; selp.b32 %r0, 1, 2, %p1;"), 2u);
    EXPECT_EQ(number("mov.f32 %f1, 0f7FC00000; max.f32 %f0, %f1, 0f3F800000;"), 1.0f) << "of NaN and a number the number";
    EXPECT_EQ(number("mov.f32 %f1, 0f3F800001; fma.rm.f32 %f0, %f1, %f1, 0f00000000;"), std::bit_cast<float>(0x3f800002u));
    EXPECT_EQ(number("mov.f32 %f1, 0f40400000; cvt.sat.f32.f32 %f0, %f1;"), 1.0f);
}

// 2^x, 1/sqrt(x) and a/b may be two units in the last place beside, and sometimes are.
TEST(PtxInstructions, ApproximationsAreAsWrongAsTheyMayBe) {
    const auto bits = [](float value) { return std::to_string(std::bit_cast<uint32_t>(value)); };
    int wrong = 0;
    for (int i = 1; i <= 20; i++) {
        const float x = 0.37f * static_cast<float>(i);
        const std::string load = "mov.b32 %f1, " + bits(x) + "; mov.b32 %f2, " + bits(3) + "; ";
        const std::pair<const char*, float> cases[] = {{"ex2.approx.f32 %f0, %f1;", std::exp2(x)},
                                                       {"rsqrt.approx.f32 %f0, %f1;", 1 / std::sqrt(x)},
                                                       {"div.approx.f32 %f0, %f1, %f2;", x / 3}};
        for (const auto& [instruction, exact] : cases) {
            const float got = number(load + instruction);
            EXPECT_LE(std::abs(static_cast<int>(std::bit_cast<uint32_t>(got) - std::bit_cast<uint32_t>(exact))), 2) << instruction << " " << x;
            wrong += got != exact ? 1 : 0;
        }
    }
    EXPECT_GT(wrong, 30);
    EXPECT_EQ(number("mov.f32 %f1, 0f00000000; ex2.approx.f32 %f0, %f1;"), 1.0f);
    EXPECT_EQ(number("mov.f32 %f1, 0fFF800000; ex2.approx.f32 %f0, %f1;"), 0.0f);
}

TEST(PtxInstructions, Shuffles) {
    const std::string lane = "mov.u32 %r1, %laneid; ";
    const auto up = lanes(lane + "shfl.sync.up.b32 %r0, %r1, 3, 0, 0xffffffff;");
    EXPECT_EQ(up[2], 2u) << "who would go beyond keeps its own";
    EXPECT_EQ(up[3], 0u);
    const auto groups = lanes(lane + "shfl.sync.idx.b32 %r0, %r1, 1, 0x181f, 0xffffffff;");  // groups of eight
    EXPECT_EQ(groups[7], 1u);
    EXPECT_EQ(groups[31], 25u);
    const auto flagged = lanes(lane + "shfl.sync.bfly.b32 %r2|%p1, %r1, 16, 15, 0xffffffff; selp.b32 %r0, 100, %r2, %p1;");
    EXPECT_EQ(flagged[3], 3u) << "lane 19 is above the clamp";
    EXPECT_EQ(flagged[19], 100u);
    const auto votes = lanes(lane + "setp.lt.u32 %p1, %r1, 4; vote.sync.ballot.b32 %r0, %p1, 0xffffffff;");
    EXPECT_EQ(votes[20], 15u);
}

TEST(PtxInstructions, JumpsGuardsAndScopes) {
    EXPECT_EQ(word("mov.u32 %r0, 0;\n$L_1:\n add.s32 %r0, %r0, 1; setp.lt.s32 %p1, %r0, 5; @%p1 bra $L_1; @!%p1 add.s32 %r0, %r0, 100;"), 105u);
    EXPECT_EQ(word("mov.u32 %r0, 1; { .reg .b32 %r0; mov.u32 %r0, 2; } add.s32 %r0, %r0, 10;"), 11u) << "an inner register hides the outer";
    EXPECT_EQ(lanes("mov.u32 %r1, s; mov.u32 %r2, 77; st.shared.u32 [%r1+12], %r2; bar.sync 0; ld.shared.u32 %r0, [s+12];")[9], 77u);
}

TEST(PtxDeathTest, WhatAGpuWouldNotDo) {
    EXPECT_DEATH(run("ld.global.u32 %r0, [%rd15+4];", 1, 1), "not in device memory.*\n.*\n.*line 15");
    EXPECT_DEATH(run("ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%rd15+8];", 8, 1), "misaligned");
    EXPECT_DEATH(run("mov.u32 %r1, s; ld.shared.u32 %r0, [%r1+64];", 1, 1), "outside of the block's shared memory");
    EXPECT_DEATH(run("ld.global.u32 %r0, [%rd3];", 1, 1), "misaligned|not in device memory") << "a register that was never written";
    EXPECT_DEATH(run("tanh.approx.f32 %f0, %f1;"), "test:15: no such instruction is known: tanh.approx.f32");
    EXPECT_DEATH(run("add.s32 %r0, %r1, %r99;"), "not known: %r99");
    EXPECT_DEATH(run("bra $L_nowhere;"), "no label");
    EXPECT_DEATH(run("mov.u32 %r1, %laneid; setp.lt.u32 %p1, %r1, 4; @%p1 bra $L_2; bar.sync 0; $L_2: bar.sync 0;"), "different operations");
}

// Thread 1 of each of two blocks writes a word, thread 0 counts the block, and all threads of the one that comes last read the other's word.
TEST(PtxDeathTest, BlocksReadWhatOthersWroteAfterIt) {
    const auto read = [](const std::string& barrier, const std::string& release, const std::string& acquire, const std::string& late) {
        const BlockOrder order;
        run("griddepcontrol.wait; mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; setp.eq.u32 %p1, %r1, 0; setp.eq.u32 %p2, %r1, 1;\n"
            "mul.wide.u32 %rd1, %r2, 4; add.s64 %rd1, %rd15, %rd1; sub.s32 %r3, 1, %r2; mul.wide.u32 %rd2, %r3, 4; add.s64 %rd2, %rd15, %rd2;\n"
            "@%p2 st.global.u32 [%rd1+4], %r1;\n" + barrier + "\n@%p1 " + release +
                "\nmov.u32 %r4, 0; @%p1 atom.global.add.u32 %r4, [%rd15], 1; @%p1 " + acquire +
                "\n@%p1 st.shared.u32 [s], %r4; bar.sync 0; @%p1 " + late +
                "\nld.shared.u32 %r5, [s]; setp.eq.u32 %p3, %r5, 1; @%p3 ld.global.u32 %r6, [%rd2+4];",
            3, 32, 2);
        return order.reads();
    };
    const std::string barrier = "bar.sync 0;", fence = "fence.acq_rel.gpu;", nothing = "mov.u32 %r7, 0;";
    EXPECT_EQ(read(barrier, fence, fence, nothing), 32u);
    constexpr const char* kFound = "reads what another of its launch wrote";
    EXPECT_DEATH(read(nothing, fence, fence, nothing), kFound) << "who fences does not know of the write";
    EXPECT_DEATH(read(barrier, nothing, fence, nothing), kFound);
    EXPECT_DEATH(read(barrier, fence, nothing, nothing), kFound);
    EXPECT_DEATH(read(barrier, fence, nothing, fence), kFound) << "who reads does not know of the fence";
}

TEST(PtxDeathTest, NothingOfTheLaunchBeforeIsTouchedBeforeTheWait) {
    const auto twice = [](const std::string& early, const std::string& late) {
        const BlockOrder order;
        return run("mov.u32 %r0, 0; mov.u32 %r1, 7; " + early + " griddepcontrol.wait; " + late, 2, 1, 1, 2)[0];
    };
    const std::string load = "ld.global.u32 %r0, [%rd15];", store = "st.global.u32 [%rd15], %r1;";
    EXPECT_EQ(twice("ld.global.u32 %r0, [%rd15+4];", load + store), 7u);
    EXPECT_DEATH(twice(load, store), "a read of what the launch before writes");
    EXPECT_DEATH(twice(store, load), "a write before the launch has waited");
}

}  // namespace
}  // namespace llm::ptx
