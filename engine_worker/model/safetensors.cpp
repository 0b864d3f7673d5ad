#include "engine_worker/model/safetensors.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "shared/json.hpp"

namespace llm::engine {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeader = 100'000'000;  // the format's own limit
constexpr size_t kMaxRank = 8;

[[noreturn]] void fail(const std::string& file, const std::string& what) {
    throw std::runtime_error(file + ": " + what);
}

bool read_u64(const Json& value, uint64_t& out) {
    if (!value.is_number_unsigned()) {
        return false;
    }
    out = value.get<uint64_t>();
    return true;
}

TensorEntry parse_entry(const Json& json, const std::string& name, uint64_t data_begin, uint64_t file_size,
                        const std::string& file) {
    const std::string what = "tensor " + name;
    if (!json.is_object()) {
        fail(file, what + " is not described by an object");
    }
    TensorEntry entry;
    const auto dtype = json.find("dtype");
    if (dtype == json.end() || !dtype->is_string()) {
        fail(file, what + " has no dtype");
    }
    if (!parse_dtype(dtype->get_ref<const std::string&>(), entry.dtype)) {
        fail(file, what + " has the unknown dtype " + dtype->get<std::string>());
    }
    const auto shape = json.find("shape");
    if (shape == json.end() || !shape->is_array() || shape->size() > kMaxRank) {
        fail(file, what + " has no shape of at most " + std::to_string(kMaxRank) + " dimensions");
    }
    uint64_t bytes = dtype_size(entry.dtype);
    for (const Json& extent : *shape) {
        uint64_t count = 0;
        if (!read_u64(extent, count) || count > INT64_MAX) {
            fail(file, what + " has a malformed shape");
        }
        if (__builtin_mul_overflow(bytes, count, &bytes)) {
            fail(file, what + " has a shape whose size overflows");
        }
        entry.shape.push_back(static_cast<int64_t>(count));
    }
    const auto offsets = json.find("data_offsets");
    uint64_t begin = 0;
    uint64_t end = 0;
    if (offsets == json.end() || !offsets->is_array() || offsets->size() != 2 ||
        !read_u64((*offsets)[0], begin) || !read_u64((*offsets)[1], end)) {
        fail(file, what + " has no data_offsets of two unsigned numbers");
    }
    const uint64_t data_size = file_size - data_begin;
    if (begin > end || end > data_size) {
        fail(file, what + " has data_offsets " + std::to_string(begin) + ".." + std::to_string(end) +
                       " outside the file's " + std::to_string(data_size) + " bytes of data");
    }
    if (end - begin != bytes) {
        fail(file, what + " spans " + std::to_string(end - begin) + " bytes, but its shape and dtype need " +
                       std::to_string(bytes));
    }
    entry.begin = data_begin + begin;
    entry.end = data_begin + end;
    return entry;
}

void refuse_overlaps(const TensorIndex& index, const std::string& file) {
    std::vector<std::pair<const std::string*, const TensorEntry*>> order;
    for (const auto& [name, entry] : index) {
        if (entry.begin != entry.end) {
            order.emplace_back(&name, &entry);
        }
    }
    std::sort(order.begin(), order.end(),
              [](const auto& a, const auto& b) { return a.second->begin < b.second->begin; });
    for (size_t i = 1; i < order.size(); i++) {
        if (order[i].second->begin < order[i - 1].second->end) {
            fail(file, "tensors " + *order[i - 1].first + " and " + *order[i].first + " overlap");
        }
    }
}

}  // namespace

TensorIndex parse_safetensors_header(std::span<const std::byte> head, uint64_t file_size,
                                     const std::string& file) {
    if (file_size < kLengthBytes || head.size() < kLengthBytes) {
        fail(file, "is too short for a safetensors header");
    }
    uint64_t length = 0;
    for (size_t i = 0; i < kLengthBytes; i++) {
        length |= static_cast<uint64_t>(head[i]) << (8 * i);
    }
    if (length > kMaxHeader || length > file_size - kLengthBytes || length > head.size() - kLengthBytes) {
        fail(file,
             "has a header length of " + std::to_string(length) + " bytes, more than the file can hold");
    }
    const char* text = reinterpret_cast<const char*>(head.data()) + kLengthBytes;
    // Two entries of one name would let the later silently replace the earlier.
    std::vector<std::string> seen;
    const Json header = Json::parse(
        text, text + length,
        [&](int depth, Json::parse_event_t event, Json& parsed) {
            if (depth == 1 && event == Json::parse_event_t::key) {
                seen.push_back(parsed.get<std::string>());
            }
            return true;
        },
        false);
    if (header.is_discarded() || !header.is_object()) {
        fail(file, "has a header that is not a JSON object");
    }
    std::sort(seen.begin(), seen.end());
    const auto twice = std::adjacent_find(seen.begin(), seen.end());
    if (twice != seen.end()) {
        fail(file, "names tensor " + *twice + " twice");
    }
    TensorIndex index;
    for (const auto& [name, json] : header.items()) {
        if (name != "__metadata__") {
            index.emplace(name, parse_entry(json, name, kLengthBytes + length, file_size, file));
        }
    }
    refuse_overlaps(index, file);
    return index;
}

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fail(path, std::string("cannot be opened: ") + std::strerror(errno));
    }
    struct stat status {};
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        close(fd);
        fail(path, "is not a regular file");
    }
    size_ = static_cast<size_t>(status.st_size);
    void* data = size_ == 0 ? MAP_FAILED : mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    close(fd);
    if (size_ == 0) {
        fail(path, "is empty");
    }
    if (data == MAP_FAILED) {
        fail(path, std::string("cannot be mapped: ") + std::strerror(error));
    }
    data_ = static_cast<const std::byte*>(data);
    try {
        index_ = parse_safetensors_header({data_, size_}, size_, path);
    } catch (...) {
        munmap(data, size_);
        throw;
    }
}

SafetensorsFile::~SafetensorsFile() {
    munmap(const_cast<std::byte*>(data_), size_);
}

Tensor SafetensorsFile::find(const std::string& name) const {
    const auto it = index_.find(name);
    if (it == index_.end()) {
        return {};
    }
    return {name, it->second.dtype, it->second.shape, data_ + it->second.begin};
}

void SafetensorsFile::release_pages() const {
    madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);
}

TensorStore::TensorStore(const std::string& dir) {
    const std::string index_path = dir + "/model.safetensors.index.json";
    std::ifstream in(index_path, std::ios::binary);
    if (!in) {
        root_ = dir + "/model.safetensors";
        auto file = std::make_unique<SafetensorsFile>(root_);
        for (const auto& [name, entry] : file->index()) {
            names_[name] = root_;
        }
        files_[root_] = std::move(file);
        return;
    }
    root_ = index_path;
    std::ostringstream text;
    text << in.rdbuf();
    const Json json = Json::parse(text.str(), nullptr, false);
    if (json.is_discarded() || !json.is_object() || !json.contains("weight_map") ||
        !json["weight_map"].is_object()) {
        fail(index_path, "has no weight_map object");
    }
    for (const auto& [name, shard] : json["weight_map"].items()) {
        // A shard lies beside its index: a path would let a model directory read files elsewhere.
        if (!shard.is_string() || shard.get_ref<const std::string&>().find('/') != std::string::npos) {
            fail(index_path, "weight_map." + name + " is not a file name");
        }
        const std::string path = dir + "/" + shard.get<std::string>();
        auto& file = files_[path];
        if (file == nullptr) {
            file = std::make_unique<SafetensorsFile>(path);
        }
        if (!file->index().contains(name)) {
            fail(path, "has no tensor " + name + ", which " + index_path + " promises");
        }
        names_[name] = path;
    }
}

Tensor TensorStore::find(const std::string& name) const {
    const auto it = names_.find(name);
    return it == names_.end() ? Tensor{} : files_.at(it->second)->find(name);
}

void TensorStore::release_pages() const {
    for (const auto& [path, file] : files_) {
        file->release_pages();
    }
}

}  // namespace llm::engine
