#include "engine_worker/tokenizer/json_part.hpp"

#include <stdexcept>

#include "shared/json.hpp"

namespace llm::engine {

bool JsonPart::is_null() const {
    return value_->is_null();
}

bool JsonPart::is_string() const {
    return value_->is_string();
}

void JsonPart::fail(const std::string& what) const {
    throw std::runtime_error(path_ + ": " + what);
}

JsonPart JsonPart::at(const char* key) const {
    static const nlohmann::json kNull;
    if (!value_->is_object())
        fail("must be an object");
    auto it = value_->find(key);
    return {it == value_->end() ? kNull : *it, path_.empty() ? key : path_ + "." + key};
}

JsonPart JsonPart::at(size_t index) const {
    return {value_->at(index), path_ + "[" + std::to_string(index) + "]"};
}

size_t JsonPart::size() const {
    if (!value_->is_array())
        fail("must be an array");
    return value_->size();
}

const std::string& JsonPart::string() const {
    if (!value_->is_string())
        fail("must be a string");
    return value_->get_ref<const std::string&>();
}

bool JsonPart::boolean(bool absent) const {
    if (value_->is_null())
        return absent;
    if (!value_->is_boolean())
        fail("must be true or false");
    return value_->get<bool>();
}

int32_t JsonPart::integer(int32_t limit) const {
    if (!value_->is_number_integer() || value_->get<int64_t>() < 0 || value_->get<int64_t>() > limit)
        fail("must be an integer from 0 to " + std::to_string(limit));
    return value_->get<int32_t>();
}

}  // namespace llm::engine
