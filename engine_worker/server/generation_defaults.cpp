#include "engine_worker/server/generation_defaults.hpp"

#include <cstdio>
#include <limits>
#include <stdexcept>

#include "engine_worker/server/sampling_ranges.hpp"
#include "engine_worker/server/served_model.hpp"

namespace llm::engine {
namespace {

class Reader {
  public:
    explicit Reader(std::string path) : path_(std::move(path)), config_(read_json(path_)) {
        if (!config_.is_null() && !config_.is_object()) {
            throw std::runtime_error(path_ + " is not a JSON object");
        }
    }

    void number(const char* name, const NumberRange& range, float& out) const {
        const Json* value = find(name);
        if (value == nullptr) {
            return;
        }
        const double given = value->is_number() ? value->get<double>() : std::numeric_limits<double>::quiet_NaN();
        if (!range.contains(given)) {
            fail(name, *value,
                 std::string("a number ") + (range.above ? "above " : "from ") + Json(range.low).dump() + " to " +
                     Json(range.high).dump());
        }
        out = static_cast<float>(given);
    }

    void integer(const char* name, int64_t low, int32_t& out) const {
        constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
        const Json* value = find(name);
        if (value == nullptr) {
            return;
        }
        if (!value->is_number_integer() || value->get<double>() < static_cast<double>(low) ||
            value->get<double>() > kMost) {
            fail(name, *value, "a whole number from " + std::to_string(low) + " to " + std::to_string(kMost));
        }
        out = value->get<int32_t>();
    }

  private:
    const Json* find(const char* name) const {
        const auto field = config_.find(name);
        return config_.is_null() || field == config_.end() || field->is_null() ? nullptr : &*field;
    }

    [[noreturn]] void fail(const char* name, const Json& value, const std::string& allowed) const {
        throw std::runtime_error(path_ + ": \"" + name + "\" is " + value.dump() + ", not " + allowed +
                                 "; --generation-config none ignores it");
    }

    std::string path_;
    Json config_;
};

}  // namespace

std::string GenerationDefaults::text() const {
    std::string out;
    const auto add = [&](const char* name, double value, double neutral) {
        if (value != neutral) {
            char number[32];
            std::snprintf(number, sizeof number, "%g", value);
            out += (out.empty() ? "" : ", ") + std::string(name) + " " + number;
        }
    };
    const GenerationDefaults neutral;
    add("temperature", temperature, neutral.temperature);
    add("top_p", top_p, neutral.top_p);
    add("top_k", top_k, neutral.top_k);
    add("min_p", min_p, neutral.min_p);
    add("repetition_penalty", repetition_penalty, neutral.repetition_penalty);
    add("max_tokens", max_tokens, neutral.max_tokens);
    return out;
}

GenerationDefaults load_generation_defaults(const std::string& dir) {
    const Reader reader(dir + "/generation_config.json");
    GenerationDefaults out;
    reader.number("temperature", kTemperature, out.temperature);
    reader.number("top_p", kTopP, out.top_p);
    reader.integer("top_k", kLeastTopK, out.top_k);
    out.top_k = out.top_k < 0 ? 0 : out.top_k;
    reader.number("min_p", kMinP, out.min_p);
    reader.number("repetition_penalty", kRepetitionPenalty, out.repetition_penalty);
    reader.integer("max_new_tokens", 1, out.max_tokens);
    return out;
}

}  // namespace llm::engine
