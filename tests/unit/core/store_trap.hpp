// Stops before every store into a region: the pages are read-only while armed, the fault calls back, the store is
// repeated with the pages writable and the processor in single-step mode, and the trap behind it closes them again.
//
// One per program, one thread. x86-64 Linux without sanitizers (which keep signals and shadow memory of their own).
#pragma once

#include "shared/sanitizers.hpp"

#if defined(__x86_64__) && defined(__linux__) && !LLM_ASAN && !LLM_TSAN
#define LLM_HAVE_STORE_TRAP 1

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>

namespace llm::core {

class StoreTrap {
  public:
    // before_store(address of the instruction) runs in the signal handler, on the stack of the code that stores. What
    // it may do is decided by that code: the core allocates nothing, so allocating is fine.
    StoreTrap(void* memory, size_t bytes, std::function<void(uintptr_t)> before_store)
        : begin_(static_cast<unsigned char*>(memory)), bytes_(bytes), before_store_(std::move(before_store)) {
        self() = this;
        struct sigaction action {};
        action.sa_flags = SA_SIGINFO;
        action.sa_sigaction = on_fault;
        sigaction(SIGSEGV, &action, &old_fault_);
        action.sa_sigaction = on_step;
        sigaction(SIGTRAP, &action, &old_step_);
    }
    ~StoreTrap() {
        sigaction(SIGSEGV, &old_fault_, nullptr);
        sigaction(SIGTRAP, &old_step_, nullptr);
        self() = nullptr;
    }
    StoreTrap(const StoreTrap&) = delete;
    StoreTrap& operator=(const StoreTrap&) = delete;

    void arm() {
        armed_ = true;
        protect(PROT_READ);
    }
    void disarm() {
        armed_ = false;
        protect(PROT_READ | PROT_WRITE);
    }
    uint64_t stores() const { return stores_; }

  private:
    static constexpr greg_t kTrapFlag = 0x100;  // of EFLAGS

    static StoreTrap*& self() {
        static StoreTrap* instance = nullptr;
        return instance;
    }

    void protect(int rights) {
        if (mprotect(begin_, bytes_, rights) != 0) {
            std::abort();
        }
    }

    static void on_fault(int, siginfo_t* info, void* context) {
        StoreTrap& trap = *self();
        auto* address = static_cast<unsigned char*>(info->si_addr);
        if (!trap.armed_ || address < trap.begin_ || address >= trap.begin_ + trap.bytes_) {
            signal(SIGSEGV, SIG_DFL);  // a real fault: again, and for good
            return;
        }
        auto* machine = &static_cast<ucontext_t*>(context)->uc_mcontext;
        ++trap.stores_;
        trap.before_store_(static_cast<uintptr_t>(machine->gregs[REG_RIP]));
        trap.protect(PROT_READ | PROT_WRITE);
        machine->gregs[REG_EFL] |= kTrapFlag;
    }

    static void on_step(int, siginfo_t*, void* context) {
        static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~kTrapFlag;
        if (self()->armed_) {
            self()->protect(PROT_READ);
        }
    }

    unsigned char* begin_;
    size_t bytes_;
    std::function<void(uintptr_t)> before_store_;
    bool armed_ = false;
    uint64_t stores_ = 0;
    struct sigaction old_fault_ {};
    struct sigaction old_step_ {};
};

}  // namespace llm::core
#endif
