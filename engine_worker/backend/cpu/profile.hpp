// Time and bytes per kind of work, so that the engine itself says how near to the machine's bandwidth it
// runs.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace llm::engine {

enum class Op : uint8_t {
    kEmbed,
    kNorm,
    kQkv,
    kRope,
    kAttention,
    kOut,
    kGateUp,
    kDown,
    kHead,
    kSample,
    kCount
};

struct OpTotal {
    uint64_t calls = 0;
    uint64_t bytes = 0;  // of weights and of keys and values; activations stay in the caches
    double seconds = 0;
};

class Profile {
  public:
    bool enabled = false;
    std::array<OpTotal, static_cast<size_t>(Op::kCount)> ops;

    void reset() { ops = {}; }
    // One line per op: calls, milliseconds, GB/s where bytes are counted, share of the time. `floor` = the
    // read bandwidth measured in the same run (bytes/s), 0 if unknown.
    std::string table(double floor) const;
};

// Adds the time of its scope to one op.
class OpTimer {
  public:
    OpTimer(Profile& profile, Op op, size_t bytes) : profile_(profile.enabled ? &profile : nullptr), op_(op) {
        if (profile_ != nullptr) {
            bytes_ = bytes;
            start_ = std::chrono::steady_clock::now();
        }
    }
    ~OpTimer() {
        if (profile_ != nullptr) {
            OpTotal& total = profile_->ops[static_cast<size_t>(op_)];
            total.calls++;
            total.bytes += bytes_;
            total.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
        }
    }
    OpTimer(const OpTimer&) = delete;
    OpTimer& operator=(const OpTimer&) = delete;

  private:
    Profile* profile_;
    Op op_;
    size_t bytes_ = 0;
    std::chrono::steady_clock::time_point start_;
};

}  // namespace llm::engine
