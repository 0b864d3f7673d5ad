// Reading tokenizer.json with errors that name the part: "normalizer.normalizers[1].type: ...".
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include <nlohmann/json_fwd.hpp>

namespace llm::engine {

// A value of the file together with where it stands. Cheap to copy; the document must outlive it.
class JsonPart {
  public:
    JsonPart(const nlohmann::json& value, std::string path) : value_(&value), path_(std::move(path)) {}

    const nlohmann::json& value() const { return *value_; }
    const std::string& path() const { return path_; }
    bool is_null() const;
    bool is_string() const;

    [[noreturn]] void fail(const std::string& what) const;

    // A member; JSON null when absent.
    JsonPart at(const char* key) const;
    JsonPart at(size_t index) const;
    // Elements of an array; the error says which part is not one.
    size_t size() const;
    const std::string& string() const;
    bool boolean(bool absent) const;
    // An integer in [0, limit].
    int32_t integer(int32_t limit) const;
    std::string type() const { return at("type").string(); }

  private:
    const nlohmann::json* value_;
    std::string path_;
};

// Nesting of Sequence parts that is still taken seriously.
constexpr int kMaxSequenceDepth = 8;
// Largest token id that a file may use: a bound on memory, far above any real vocabulary.
constexpr int32_t kMaxTokenId = (1 << 24) - 1;

}  // namespace llm::engine
