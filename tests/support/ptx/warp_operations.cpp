// What the lanes of a warp do together, and asynchronous copies. Written from "Parallel Thread Execution ISA", sections "Warp level
// matrix instructions", shfl.sync, vote.sync, cp.async, griddepcontrol; not from what kernels or their emulation say of it.
#include <algorithm>
#include <bit>
#include <cmath>

#include "engine_worker/model/dtype.hpp"
#include "tests/support/cuda_emulation/emulation.hpp"
#include "tests/support/ptx/machine.hpp"

namespace llm::ptx {
namespace {

using emulation::exchange;
using emulation::lane;
using emulation::Payload;
using engine::bf16_to_f32;

constexpr uint32_t kAll = 0xffffffffu;

const Payload* meet(const Instruction& i, uint32_t mask, const void* data, size_t size) {
    return exchange(static_cast<int>(i.kind), mask, data, size);
}

template <typename T>
T element(const Payload& payload, size_t index) {
    T out;
    std::memcpy(&out, payload.bytes + index * sizeof(T), sizeof(T));
    return out;
}

enum class Shuffle { kUp, kDown, kButterfly, kIndex };

// shfl.sync.mode.b32 d|p, a, b, c, membermask
template <Shuffle kMode>
void shuffle(Thread& t, const Instruction& i) {
    const size_t a = i.has_second ? 2 : 1;
    const auto value = t.get<uint32_t>(i, a);
    const uint32_t b = t.get<uint32_t>(i, a + 1) & 31;
    const auto c = t.get<uint32_t>(i, a + 2);
    const auto mask = t.get<uint32_t>(i, a + 3);
    const Payload* all = meet(i, mask, &value, sizeof value);
    const auto me = static_cast<uint32_t>(lane());
    const uint32_t segment = c >> 8 & 31, clamp = c & 31;
    const uint32_t most = (me & segment) | (clamp & ~segment);
    const uint32_t least = me & segment;
    int from = 0;
    bool valid = false;
    switch (kMode) {
        case Shuffle::kUp:
            from = static_cast<int>(me) - static_cast<int>(b);
            valid = from >= static_cast<int>(most);
            break;
        case Shuffle::kDown:
            from = static_cast<int>(me + b);
            valid = from <= static_cast<int>(most);
            break;
        case Shuffle::kButterfly:
            from = static_cast<int>(me ^ b);
            valid = from <= static_cast<int>(most);
            break;
        case Shuffle::kIndex:
            from = static_cast<int>(least | (b & ~segment));
            valid = from <= static_cast<int>(most);
            break;
    }
    from = valid ? from : static_cast<int>(me);
    if ((mask >> from & 1) == 0) {
        t.fail("a shuffle from a lane that is not in the mask");
    }
    if (i.has_second) {
        t.set<uint32_t>(i, 1, valid ? 1 : 0);
    }
    t.set<uint32_t>(i, 0, element<uint32_t>(all[from], 0));
}

void ballot(Thread& t, const Instruction& i) {
    const uint32_t mine = t.predicate(i, 1) ? 1 : 0;
    const auto mask = t.get<uint32_t>(i, 2);
    const Payload* all = meet(i, mask, &mine, sizeof mine);
    uint32_t out = 0;
    for (uint32_t k = 0; k < 32; k++) {
        out |= (mask >> k & 1) != 0 ? element<uint32_t>(all[k], 0) << k : 0;
    }
    t.set(i, 0, out);
}

// start + the sum of a * b, as unprecise as it may be: the manual promises single precision, but no order and no rounding. Tensor cores
// were seen to shift all that they add to the exponent of the largest, where they cut it off.
float sum_of_products(float start, const float (&a)[16], const float* b, size_t stride) {
    double terms[17] = {static_cast<double>(start)};
    double sum = terms[0], largest = std::fabs(sum);
    for (size_t k = 0; k < 16; k++) {
        terms[k + 1] = static_cast<double>(a[k]) * static_cast<double>(b[k * stride]);
        sum += terms[k + 1];
        largest = std::max(largest, std::fabs(terms[k + 1]));
    }
    if (!std::isfinite(sum) || largest < 0x1p-126) {
        return std::isnan(sum) ? std::bit_cast<float>(0x7fffffffu) : static_cast<float>(sum);
    }
    const auto power = [](int exponent) { return std::bit_cast<double>(static_cast<uint64_t>(exponent + 1023) << 52); };
    const int exponent = static_cast<int>(std::bit_cast<uint64_t>(largest) >> 52) - 1023;
    const double to_units = power(24 - exponent);
    int64_t units = 0;
    for (const double term : terms) {
        units += static_cast<int64_t>(term * to_units);
    }
    const double cut = static_cast<double>(units) * power(exponent - 24);
    const auto out = static_cast<float>(cut);
    return std::fabs(static_cast<double>(out)) > std::fabs(cut) ? std::nextafter(out, 0.0f) : out;
}

// d (16 x 8, f32) = a (16 x 16, bf16, rows) * b (16 x 8, bf16, columns) + c. Of lane 4g + t: element e of a's eight is row
// g + 8 [e in 2,3,6,7], column 2t + e % 2 + 8 [e >= 4]; of b's four row 2t + e % 2 + 8 [e >= 2], column g; of c's and d's four row
// g + 8 [e >= 2], column 2t + e % 2.
void mma_m16n8k16(Thread& t, const Instruction& i) {
    struct Fragments {
        uint16_t a[8], b[4];
    } mine;
    for (size_t r = 0; r < 4; r++) {
        const auto pair = t.get<uint32_t>(i, 4 + r);
        mine.a[2 * r] = static_cast<uint16_t>(pair);
        mine.a[2 * r + 1] = static_cast<uint16_t>(pair >> 16);
    }
    for (size_t r = 0; r < 2; r++) {
        const auto pair = t.get<uint32_t>(i, 8 + r);
        mine.b[2 * r] = static_cast<uint16_t>(pair);
        mine.b[2 * r + 1] = static_cast<uint16_t>(pair >> 16);
    }
    const Payload* all = meet(i, kAll, &mine, sizeof mine);
    const auto me = static_cast<size_t>(lane());
    const size_t group = me / 4, in_group = me % 4;
    float a[2][16], b[16][2];  // the two rows and the two columns that this lane's sums take
    for (size_t k = 0; k < 16; k++) {
        // whose fragment holds column (of a) or row (of b) k, and where
        const size_t owner = k % 8 / 2, upper = k / 8, odd = k % 2;
        for (size_t half = 0; half < 2; half++) {
            a[half][k] = bf16_to_f32(element<uint16_t>(all[4 * group + owner], 4 * upper + 2 * half + odd));
        }
        for (size_t column = 0; column < 2; column++) {
            const size_t n = 2 * in_group + column;
            b[k][column] = bf16_to_f32(element<uint16_t>(all[4 * n + owner], 8 + 2 * upper + odd));
        }
    }
    for (size_t e = 0; e < 4; e++) {
        t.set(i, e, sum_of_products(t.get<float>(i, 10 + e), a[e / 2], &b[0][e % 2], 2));
    }
}

// Lane i's address is that of row i % 8 of matrix i / 8. Lane 4r + c gets row r, columns 2c and 2c + 1 of each; transposed, rows 2c and
// 2c + 1 of column r.
template <bool kTransposed>
void ldmatrix_x4(Thread& t, const Instruction& i) {
    const std::byte* row = t.address_of(i, 4, Space::kShared, 16);
    const Payload* all = meet(i, kAll, row, 16);
    const auto me = static_cast<size_t>(lane());
    for (size_t matrix = 0; matrix < 4; matrix++) {
        uint32_t pair = 0;
        for (size_t e = 0; e < 2; e++) {
            const size_t r = kTransposed ? 2 * (me % 4) + e : me / 4;
            const size_t c = kTransposed ? me / 4 : 2 * (me % 4) + e;
            pair |= uint32_t{element<uint16_t>(all[8 * matrix + r], c)} << (16 * e);
        }
        t.set(i, matrix, pair);
    }
}

// All threads of a block, every warp at one instruction.
void barrier(Thread& t, const Instruction& i) {
    if (t.get<uint32_t>(i, 0) != 0 || i.count != 1) {
        t.fail("only barrier 0, for all threads, is known");
    }
    const uint32_t nothing = 0;
    meet(i, kAll, &nothing, sizeof nothing);
    if (t.order != nullptr) {
        t.order->arrive();
    }
    emulation::sync_block();
    if (t.order != nullptr) {
        t.order->leave();
    }
}

// cp.async.cg.shared.global [to], [from], 16, size: what is beyond `size` becomes zeros and is not read.
void async_copy(Thread& t, const Instruction& i) {
    if (t.get<uint32_t>(i, 2) != 16) {
        t.fail("cp.async.cg copies 16 bytes");
    }
    const uint32_t size = i.count > 3 ? t.get<uint32_t>(i, 3) : 16;
    if (size != 0 && size != 16) {
        t.fail("a part of 16 bytes is not copied anywhere");
    }
    std::byte* to = t.address_of(i, 0, Space::kShared, 16, 0);
    const std::byte* from = size == 0 ? to : t.address_of(i, 1, Space::kGlobal, 16, 1);
    if (size != 0 && t.watched(from)) {
        t.order->read(t, from, 16);
    }
    emulation::async_copy(to, from, 16, size == 0);
}
void async_commit(Thread&, const Instruction&) { emulation::async_commit(); }
void async_wait(Thread& t, const Instruction& i) { emulation::async_wait(t.get<int32_t>(i, 0)); }

void wait_for_launch_before(Thread& t, const Instruction&) {
    emulation::wait_for_launch_before();
    if (t.order != nullptr) {
        t.order->wait();
    }
}
void fence_gpu(Thread& t, const Instruction&) {
    if (t.order != nullptr) {
        t.order->fence();
    }
}
void nothing(Thread&, const Instruction&) {}

}  // namespace

Run find_warp_operation(std::string_view opcode) {
    static constexpr std::pair<std::string_view, Run> kAllOperations[] = {
        {"shfl.sync.up.b32", shuffle<Shuffle::kUp>},
        {"shfl.sync.down.b32", shuffle<Shuffle::kDown>},
        {"shfl.sync.bfly.b32", shuffle<Shuffle::kButterfly>},
        {"shfl.sync.idx.b32", shuffle<Shuffle::kIndex>},
        {"vote.sync.ballot.b32", ballot},
        {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", mma_m16n8k16},
        {"ldmatrix.sync.aligned.m8n8.x4.shared.b16", ldmatrix_x4<false>},
        {"ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16", ldmatrix_x4<true>},
        {"bar.sync", barrier},
        {"cp.async.cg.shared.global", async_copy},
        {"cp.async.commit_group", async_commit},
        {"cp.async.wait_group", async_wait},
        {"griddepcontrol.wait", wait_for_launch_before},
        {"griddepcontrol.launch_dependents", nothing},
        {"fence.acq_rel.gpu", fence_gpu},
    };
    for (const auto& [name, run] : kAllOperations) {
        if (name == opcode) {
            return run;
        }
    }
    return nullptr;
}

}  // namespace llm::ptx
