#include "ngx_module/sources/usage_handover.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

namespace llm::nginx::sources {
namespace {

// The file is blocks, each with this in front.
struct BlockHead {
    uint64_t records;
    uint64_t bytes;  // that follow
};

// Other processes wait meanwhile; the kernel ends the lock of a process that ends.
class FileLock {
  public:
    explicit FileLock(int fd) : fd_(fd) { apply(F_WRLCK); }
    ~FileLock() { apply(F_UNLCK); }
    FileLock(const FileLock&) = delete;
    FileLock& operator=(const FileLock&) = delete;

  private:
    void apply(int type) {
        struct flock lock {};
        lock.l_type = static_cast<short>(type);
        lock.l_whence = SEEK_SET;
        while (fcntl(fd_, F_SETLKW, &lock) != 0 && errno == EINTR) {
        }
    }

    int fd_;
};

size_t size_of(int fd) {
    struct stat info {};
    return fd >= 0 && fstat(fd, &info) == 0 ? static_cast<size_t>(info.st_size) : 0;
}

bool cut(int fd, size_t size) {
    return ftruncate(fd, static_cast<off_t>(size)) == 0;
}

bool read_all(int fd, void* to, size_t bytes, size_t offset) {
    auto* out = static_cast<char*>(to);
    while (bytes > 0) {
        const ssize_t got = pread(fd, out, bytes, static_cast<off_t>(offset));
        if (got <= 0) {
            return false;
        }
        out += got;
        offset += static_cast<size_t>(got);
        bytes -= static_cast<size_t>(got);
    }
    return true;
}

// Calls see(head, offset of the block) for each block that is there as a whole; returns where they end. What
// a process left behind that was killed while it wrote lies beyond.
template <typename See>
size_t walk(int fd, const See& see) {
    const size_t size = size_of(fd);
    size_t at = 0;
    BlockHead head{};
    while (size - at >= sizeof head && read_all(fd, &head, sizeof head, at) &&
           head.bytes <= size - at - sizeof head) {
        see(head, at);
        at += sizeof head + static_cast<size_t>(head.bytes);
    }
    return at;
}

size_t count_of(int fd) {
    size_t records = 0;
    walk(fd, [&](const BlockHead& head, size_t) { records += static_cast<size_t>(head.records); });
    return records;
}

}  // namespace

int UsageHandover::make() {
    return memfd_create("llm_usage", MFD_CLOEXEC);
}

bool UsageHandover::empty() const {
    return size_of(fd_) == 0;
}

bool UsageHandover::put(std::span<const UsageRecord> records) {
    if (fd_ < 0) {
        return false;
    }
    std::string block(sizeof(BlockHead), '\0');
    for (const UsageRecord& record : records) {
        append_packed(block, record);
    }
    const BlockHead head{records.size(), block.size() - sizeof(BlockHead)};
    std::memcpy(block.data(), &head, sizeof head);
    const FileLock lock(fd_);
    const size_t end = walk(fd_, [](const BlockHead&, size_t) {});
    if (end + block.size() > kMostBytes || !cut(fd_, end)) {
        return false;
    }
    if (pwrite(fd_, block.data(), block.size(), static_cast<off_t>(end)) ==
        static_cast<ssize_t>(block.size())) {
        return true;
    }
    cut(fd_, end);
    return false;
}

std::vector<UsageRecord> UsageHandover::take() {
    std::vector<UsageRecord> records;
    if (empty()) {
        return records;
    }
    const FileLock lock(fd_);
    BlockHead last{};
    size_t begin = 0;
    walk(fd_, [&](const BlockHead& head, size_t at) {
        last = head;
        begin = at;
    });
    std::string block(static_cast<size_t>(last.bytes), '\0');
    const bool whole = read_all(fd_, block.data(), block.size(), begin + sizeof last);
    if (!cut(fd_, begin) || !whole) {
        return records;
    }
    std::string_view rest = block;
    for (UsageRecord record; unpack(rest, record); record = UsageRecord()) {
        records.push_back(std::move(record));
    }
    return records;
}

size_t UsageHandover::count() const {
    if (empty()) {
        return 0;
    }
    const FileLock lock(fd_);
    return count_of(fd_);
}

size_t UsageHandover::discard() {
    if (empty()) {
        return 0;
    }
    const FileLock lock(fd_);
    const size_t records = count_of(fd_);
    return cut(fd_, 0) ? records : 0;
}

}  // namespace llm::nginx::sources
