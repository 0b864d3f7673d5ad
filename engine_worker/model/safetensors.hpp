// Reads safetensors files: an 8-byte little-endian header length, a JSON header naming each tensor's format,
// shape and byte range, then the data (https://github.com/huggingface/safetensors, "Format").
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine_worker/model/dtype.hpp"

namespace llm::engine {

// Where one tensor lies in its file.
struct TensorEntry {
    DType dtype = DType::kF32;
    std::vector<int64_t> shape;
    uint64_t begin = 0;  // bytes from the start of the file
    uint64_t end = 0;    // one past the last byte
};

using TensorIndex = std::map<std::string, TensorEntry, std::less<>>;

// The index of a file of `file_size` bytes whose first bytes are `head` (at least the whole header; the whole
// file will do). Checks every promise of the format: lengths, bounds, overlaps, shape times element size.
// Throws std::runtime_error with one sentence that starts with `file`.
TensorIndex parse_safetensors_header(std::span<const std::byte> head, uint64_t file_size,
                                     const std::string& file);

// A tensor inside a mapped file. The data need no alignment and live as long as the file stays mapped.
struct Tensor {
    std::string name;
    DType dtype = DType::kF32;
    std::vector<int64_t> shape;
    const std::byte* data = nullptr;

    explicit operator bool() const { return data != nullptr; }
    size_t row_bytes() const { return static_cast<size_t>(shape.back()) * dtype_size(dtype); }
};

// One file, mapped read-only for as long as this object lives.
class SafetensorsFile {
  public:
    // Throws std::runtime_error naming `path`.
    explicit SafetensorsFile(const std::string& path);
    ~SafetensorsFile();
    SafetensorsFile(const SafetensorsFile&) = delete;
    SafetensorsFile& operator=(const SafetensorsFile&) = delete;

    const std::string& path() const { return path_; }
    const TensorIndex& index() const { return index_; }
    // An empty Tensor where there is none of that name.
    Tensor find(const std::string& name) const;
    // Tells the kernel that the pages will not be read again soon. They stay valid.
    void release_pages() const;

  private:
    std::string path_;
    const std::byte* data_ = nullptr;
    size_t size_ = 0;
    TensorIndex index_;
};

// All tensors of a model directory: model.safetensors, or the shards that model.safetensors.index.json names.
class TensorStore {
  public:
    // Throws std::runtime_error naming the file at fault.
    explicit TensorStore(const std::string& dir);

    // An empty Tensor where there is none of that name.
    Tensor find(const std::string& name) const;
    // Name of every tensor and the path of the file that holds it.
    const std::map<std::string, std::string>& names() const { return names_; }
    // The file to name when a tensor is missing.
    const std::string& root() const { return root_; }
    void release_pages() const;

  private:
    std::string root_;
    std::map<std::string, std::unique_ptr<SafetensorsFile>> files_;  // by path
    std::map<std::string, std::string> names_;
};

}  // namespace llm::engine
