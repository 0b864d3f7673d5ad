// Any sequence of calls by two workers keeps the zone consistent.
#include <memory>

#include "ngx_module/core/layout.hpp"
#include "tests/unit/core/driver.hpp"

namespace llm::core {
namespace {

class Bytes : public Choices {
  public:
    Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
    uint32_t next(uint32_t n) override {
        uint32_t value = 0;
        for (uint32_t bound = n - 1; bound != 0; bound >>= 8) {
            value = value << 8 | (at_ < size_ ? data_[at_++] : 0);
        }
        return value % n;
    }
    bool done() const override { return at_ >= size_; }

  private:
    const uint8_t* data_;
    size_t size_;
    size_t at_ = 0;
};

struct FreeDeleter {
    void operator()(void* memory) const { std::free(memory); }
};

}  // namespace
}  // namespace llm::core

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace llm::core;
    static const size_t kBytes = plan_zone(1).min_bytes;
    static std::unique_ptr<void, FreeDeleter> memory(std::aligned_alloc(64, (kBytes + 63) / 64 * 64));
    require(format_zone(memory.get(), kBytes), "format");
    Zone zone;
    require(zone.attach(memory.get(), kBytes, LockOps{[](void*) {}, [](void*) {}, nullptr}), "attach");
    int64_t now = 1'000'000'000;
    int64_t wall = 1'763'700'000;
    Bytes choices(data, size);
    Driver first(zone, choices, now, wall, 1);
    first.load_clients();
    first.apply_engines();
    Driver second(zone, choices, now, wall, 2);
    const char* where = nullptr;
    while (!choices.done()) {
        (choices.next(2) == 0 ? first : second).step();
        if (choices.next(32) == 0) {
            zone.header()->dirty = 1;  // as after a death inside the lock: everything is built again
        }
        ZoneLock lock(zone);
        require(check_zone(lock, &where), where);
    }
    first.finish_all();
    second.finish_all();
    ZoneLock lock(zone);
    require(check_zone(lock, &where), where);
    const QueueTotals totals = queue_totals(lock);
    require(totals.queued + totals.granted + totals.running + totals.held == 0, "something is left");
    return 0;
}
