// Preloaded into nginx, llm-engine and llm-reporter by `make test-jitter`: system calls that others can see take up to 20 ms longer
// now and then, rarely up to 300 ms, before and after, so that whatever relies on a process's next step being soon (a wake-up, a
// line in the log, a count) shows itself without a busy machine. Most often it is late after it has sent something to a client, who
// may know the end of its answer before that is logged and counted. At most half of a thread's time is lost so. Nothing waits inside
// the zone's lock: no system call is made there.

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <ctime>

#include <dlfcn.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

constexpr unsigned kEvery = 8;           // of the calls, on average
constexpr unsigned kEveryToClients = 2;  // of those that sent something to a client
constexpr std::uint32_t kLongestNs = 20'000'000;
constexpr unsigned kRarely = 64;  // one of so many of those may take kStallNs: others had the processor
constexpr std::uint32_t kStallNs = 300'000'000;

std::uint64_t monotonic_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(now.tv_nsec);
}

/// xorshift64 (Marsaglia 2003), begun anew in each process and thread: they must not stumble in step.
std::uint32_t next_random() {
    static thread_local std::uint64_t state;
    static thread_local pid_t owner;
    if (owner != getpid()) {
        owner = getpid();
        state = (static_cast<std::uint64_t>(owner) * 2654435761U ^ monotonic_ns()) | 1U;
    }
    state ^= state << 13U;
    state ^= state >> 7U;
    state ^= state << 17U;
    return static_cast<std::uint32_t>(state >> 32U);
}

void stumble(unsigned every = kEvery) {
    static thread_local std::uint64_t not_before;
    if (next_random() % every != 0 || monotonic_ns() < not_before) {
        return;
    }
    const int kept = errno;
    const std::uint32_t longest = next_random() % kRarely == 0 ? kStallNs : kLongestNs;
    const timespec pause{0, static_cast<long>(next_random() % longest)};
    nanosleep(&pause, nullptr);
    not_before = monotonic_ns() + static_cast<std::uint64_t>(pause.tv_nsec);
    errno = kept;
}

constexpr int kFds = 4096;
std::atomic<bool> accepted[kFds];  // which file descriptors are connections of clients

void note(int fd, bool of_client) {
    if (fd >= 0 && fd < kFds) {
        accepted[fd] = of_client;
    }
}

void after_sending(int fd) {
    if (fd >= 0 && fd < kFds && accepted[fd]) {
        stumble(kEveryToClients);
    }
}

template <class Function, class... Args>
auto stumbling(Function*& next, const char* name, Args... args) {
    if (next == nullptr) {
        next = reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
    }
    stumble();
    const auto result = next(args...);
    stumble();
    return result;
}

}  // namespace

// The parameters have the C library's types; its headers declare these functions for C callers. `then` may use `got`, the result.
#define STUMBLING(result, name, parameters, arguments, then)                                    \
    extern "C" result name parameters {                                                         \
        static result(*next) parameters = nullptr;                                              \
        const auto got = [&](auto... args) { return stumbling(next, #name, args...); } arguments; \
        then;                                                                                   \
        return got;                                                                             \
    }

STUMBLING(ssize_t, write, (int fd, const void* data, size_t size), (fd, data, size), after_sending(fd))
STUMBLING(ssize_t, writev, (int fd, const iovec* parts, int count), (fd, parts, count), after_sending(fd))
STUMBLING(ssize_t, send, (int fd, const void* data, size_t size, int flags), (fd, data, size, flags), after_sending(fd))
STUMBLING(ssize_t, recv, (int fd, void* data, size_t size, int flags), (fd, data, size, flags), )
STUMBLING(int, accept4, (int fd, sockaddr* address, socklen_t* size, int flags), (fd, address, size, flags), note(got, true))
STUMBLING(int, epoll_wait, (int fd, epoll_event* events, int count, int timeout), (fd, events, count, timeout), )
STUMBLING(int, close, (int fd), (fd), note(fd, false))
