// Reading tokenizer.json with errors that name the part: "normalizer.normalizers[1].type: ...".
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "shared/json.hpp"

namespace llm::engine {

// A value of the file together with where it stands. Cheap to copy; the document must outlive it.
class JsonPart {
  public:
    JsonPart(const nlohmann::json& value, std::string path) : value_(&value), path_(std::move(path)) {}

    const nlohmann::json& value() const { return *value_; }
    const std::string& path() const { return path_; }
    bool is_null() const { return value_->is_null(); }

    [[noreturn]] void fail(const std::string& what) const { throw std::runtime_error(path_ + ": " + what); }

    // A member; JSON null when absent.
    JsonPart at(const char* key) const {
        static const nlohmann::json kNull;
        if (!value_->is_object())
            fail("must be an object");
        auto it = value_->find(key);
        return {it == value_->end() ? kNull : *it, path_.empty() ? key : path_ + "." + key};
    }
    JsonPart at(size_t index) const { return {value_->at(index), path_ + "[" + std::to_string(index) + "]"}; }
    // Elements of an array; the error says which part is not one.
    size_t size() const {
        if (!value_->is_array())
            fail("must be an array");
        return value_->size();
    }
    const std::string& string() const {
        if (!value_->is_string())
            fail("must be a string");
        return value_->get_ref<const std::string&>();
    }
    bool boolean(bool absent) const {
        if (value_->is_null())
            return absent;
        if (!value_->is_boolean())
            fail("must be true or false");
        return value_->get<bool>();
    }
    // An integer in [0, limit].
    int32_t integer(int32_t limit) const {
        if (!value_->is_number_integer() || value_->get<int64_t>() < 0 || value_->get<int64_t>() > limit)
            fail("must be an integer from 0 to " + std::to_string(limit));
        return value_->get<int32_t>();
    }
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
