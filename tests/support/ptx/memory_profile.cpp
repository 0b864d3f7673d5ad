#include "tests/support/ptx/memory_profile.hpp"

#include <algorithm>
#include <array>
#include <set>
#include <tuple>
#include <vector>

#include "tests/support/cuda_emulation/emulation.hpp"
#include "tests/support/ptx/module.hpp"

namespace llm::ptx {
namespace {

constexpr size_t kWarp = 32;
constexpr uint64_t kBanks = 32, kSector = 32;

MemoryProfile* the_profile = nullptr;

// Accesses of a warp's lanes to the same instruction for the nth time are one.
struct Access {
    uint32_t place;  // instruction and address within it
    uint32_t nth;
    uint32_t warp;
    uint8_t lane, bytes;
    bool shared;
    uint64_t at;
};
bool before(const Access& a, const Access& b) {
    return std::tie(a.place, a.warp, a.nth, a.lane) < std::tie(b.place, b.warp, b.nth, b.lane);
}
bool together(const Access& a, const Access& b) {
    return std::tie(a.place, a.warp, a.nth) == std::tie(b.place, b.warp, b.nth);
}

using Range = std::vector<Access>::const_iterator;

// 16 bytes are served for 8 lanes at a time, 8 for 16: for each such part, as often as different words of a bank are asked for.
void add_turns(Range begin, Range end, MemoryUse& use) {
    const size_t lanes = begin->bytes >= 16 ? 8 : begin->bytes == 8 ? 16 : kWarp;
    for (size_t first = 0; first < kWarp; first += lanes) {
        std::array<std::set<uint64_t>, kBanks> words;
        bool any = false;
        for (auto access = begin; access != end; ++access) {
            if (access->lane >= first && access->lane < first + lanes) {
                any = true;
                for (uint64_t word = access->at / 4; word <= (access->at + access->bytes - 1) / 4; word++) {
                    words[word % kBanks].insert(word);
                }
            }
        }
        if (any) {
            use.least_turns++;
            use.turns += std::max_element(words.begin(), words.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); })->size();
        }
    }
}

void add_sectors(Range begin, Range end, MemoryUse& use) {
    std::set<uint64_t> sectors, addresses;
    for (auto access = begin; access != end; ++access) {
        sectors.insert(access->at / kSector);
        addresses.insert(access->at);
    }
    use.sectors += sectors.size();
    use.least_sectors += (addresses.size() * begin->bytes + kSector - 1) / kSector;
}

}  // namespace

struct MemoryProfile::Parts {
    const Module* module = nullptr;
    const Kernel* kernel = nullptr;  // whose block runs
    emulation::Index3 block;
    std::vector<Access> accesses;    // of that block
    // of that block: [thread][place] how often it came by
    std::vector<std::vector<uint32_t>> visits;
    std::map<const Kernel*, std::map<uint32_t, MemoryUse>> uses;  // by place

    void end_block() {
        std::sort(accesses.begin(), accesses.end(), before);
        for (auto begin = accesses.cbegin(); begin != accesses.cend();) {
            const auto end = std::find_if_not(begin, accesses.cend(), [&](const Access& access) { return together(*begin, access); });
            MemoryUse& use = uses[kernel][begin->place];
            begin->shared ? add_turns(begin, end, use) : add_sectors(begin, end, use);
            begin = end;
        }
        accesses.clear();
        visits.clear();
    }
};

MemoryProfile* memory_profile() { return the_profile; }

MemoryProfile::MemoryProfile() : parts_(new Parts) { the_profile = this; }
MemoryProfile::~MemoryProfile() {
    the_profile = nullptr;
    delete parts_;
}

void MemoryProfile::thread_begins(const Module& module, const Kernel& kernel) {
    const auto& block = emulation::block_index;
    Parts& p = *parts_;
    if (p.kernel != &kernel || std::tie(p.block.x, p.block.y, p.block.z) != std::tie(block.x, block.y, block.z)) {
        p.end_block();
        p.module = &module;
        p.kernel = &kernel;
        p.block = block;
    }
    // The same block of the same kernel again, launched next, goes on counting: its accesses are other ones.
    const size_t thread = emulation::thread_index.x;
    p.visits.resize(std::max(p.visits.size(), thread + 1));
    p.visits[thread].resize(2 * kernel.code.size());
}

void MemoryProfile::access(const Instruction& instruction, size_t bracket, bool shared, uint64_t at, size_t bytes) {
    Parts& p = *parts_;
    const uint32_t thread = emulation::thread_index.x;
    const auto place = static_cast<uint32_t>(2 * static_cast<size_t>(&instruction - p.kernel->code.data()) + bracket);
    const uint32_t nth = p.visits[thread][place]++;
    p.accesses.push_back({place, nth, thread / 32, static_cast<uint8_t>(thread % 32), static_cast<uint8_t>(bytes), shared, at});
}

std::map<std::string, MemoryUse> MemoryProfile::kernels() {
    parts_->end_block();
    std::map<std::string, MemoryUse> out;
    for (const auto& [kernel, places] : parts_->uses) {
        MemoryUse& sum = out[kernel->name];
        for (const auto& [place, use] : places) {
            sum.turns += use.turns;
            sum.least_turns += use.least_turns;
            sum.sectors += use.sectors;
            sum.least_sectors += use.least_sectors;
        }
    }
    return out;
}

std::string MemoryProfile::worst(const std::string& name, size_t lines) {
    parts_->end_block();
    std::string out;
    for (const auto& [kernel, places] : parts_->uses) {
        if (kernel->name != name) {
            continue;
        }
        const auto excess = [](const MemoryUse& use) { return use.turns - use.least_turns + use.sectors - use.least_sectors; };
        std::vector<std::pair<uint32_t, MemoryUse>> order(places.begin(), places.end());
        std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) { return excess(a.second) > excess(b.second); });
        for (size_t i = 0; i < std::min(lines, order.size()) && excess(order[i].second) > 0; i++) {
            const uint32_t line = kernel->code[order[i].first / 2].line;
            out += std::to_string(excess(order[i].second)) + " more in line " + std::to_string(line) + ":" + parts_->module->lines[line - 1] + "\n";
        }
    }
    return out;
}

}  // namespace llm::ptx
