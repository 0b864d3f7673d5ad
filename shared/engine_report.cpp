#include "shared/engine_report.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>

namespace llm {
namespace {

using nlohmann::json;

constexpr size_t kMaxReportBytes = 64 * 1024;
constexpr size_t kMaxUrlBytes = 255;
constexpr double kMaxCounter = 1e18;

constexpr std::string_view kStateNames[] = {"loading", "ready", "draining", "failed", "gone"};

bool has_control_character(std::string_view text) {
    for (unsigned char c : text) {
        if (c < 0x20 || c == 0x7f) {
            return true;
        }
    }
    return false;
}

// Takes an integer, also one that is written as 8.0 or 1.7637e12, as some languages do.
bool read_unsigned(const json& member, uint64_t& out) {
    constexpr double kLargestExact = 9007199254740992;  // 2^53
    if (member.is_number_unsigned()) {
        out = member.get<uint64_t>();
        return true;
    }
    if (!member.is_number_float()) {
        return false;
    }
    const double value = member.get<double>();
    if (!(value >= 0 && value <= kLargestExact) || std::floor(value) != value) {
        return false;
    }
    out = static_cast<uint64_t>(value);
    return true;
}

// Reads the members of one object; the first failure is kept and ends all further reading.
class Reader {
  public:
    explicit Reader(const json& object) : object_(object) {}

    const std::string& error() const { return error_; }

    void text(const char* name, bool required, size_t max_bytes, std::string& out) {
        const json* member = find(name, required);
        if (member == nullptr) {
            return;
        }
        if (!member->is_string()) {
            return fail(name, "not a string");
        }
        const auto& value = member->get_ref<const std::string&>();
        if ((required && value.empty()) || value.size() > max_bytes || has_control_character(value)) {
            return fail(name, "must have " + std::string(required ? "1" : "0") + " to " + std::to_string(max_bytes) +
                                  " bytes and no control character");
        }
        out = value;
    }

    template <class Integer>
    void integer(const char* name, bool required, uint64_t min, uint64_t max, Integer& out) {
        const json* member = find(name, required);
        if (member == nullptr) {
            return;
        }
        uint64_t value;
        if (!read_unsigned(*member, value)) {
            return fail(name, "not an unsigned integer");
        }
        if (value < min || value > max) {
            return fail(name, "must be in " + std::to_string(min) + ".." + std::to_string(max));
        }
        out = static_cast<Integer>(value);
    }

    // Returns true when the member was there and good.
    bool number(const char* name, double max, double& out) {
        const json* member = find(name, false);
        if (member == nullptr) {
            return false;
        }
        if (!member->is_number()) {
            fail(name, "not a number");
            return false;
        }
        const double value = member->get<double>();
        if (!std::isfinite(value) || value < 0 || value > max) {
            fail(name, "must be in 0.." + std::to_string(static_cast<uint64_t>(max)));
            return false;
        }
        out = value;
        return true;
    }

    void boolean(const char* name, bool& out) {
        const json* member = find(name, false);
        if (member == nullptr) {
            return;
        }
        if (!member->is_boolean()) {
            return fail(name, "not true or false");
        }
        out = member->get<bool>();
    }

    void models(std::vector<std::string>& out) {
        const json* member = find("models", true);
        if (member == nullptr) {
            return;
        }
        if (!member->is_array() || member->empty() || member->size() > kMaxModels) {
            return fail("models", "must be an array of 1 to 64 names");
        }
        for (const json& name : *member) {
            if (!name.is_string() || !is_model_name(name.get_ref<const std::string&>())) {
                return fail("models", "a name must have 1 to 255 bytes and no control character");
            }
            out.push_back(name.get<std::string>());
        }
    }

    void fail(const char* name, const std::string& reason) {
        if (error_.empty()) {
            error_ = "\"" + std::string(name) + "\": " + reason;
        }
    }

  private:
    // null counts as absent, as in every message that we read.
    const json* find(const char* name, bool required) {
        if (!error_.empty()) {
            return nullptr;
        }
        auto it = object_.find(name);
        if (it == object_.end() || it->is_null()) {
            if (required) {
                fail(name, "missing");
            }
            return nullptr;
        }
        return &*it;
    }

    const json& object_;
    std::string error_;
};

void read_state(Reader& reader, EngineReport& out) {
    std::string name;
    reader.text("state", true, 16, name);
    if (!reader.error().empty()) {
        return;
    }
    for (size_t i = 0; i < std::size(kStateNames); ++i) {
        if (name == kStateNames[i]) {
            out.state = static_cast<EngineState>(i);
            return;
        }
    }
    reader.fail("state", "must be loading, ready, draining, failed or gone");
}

// host[:port] or [IPv6][:port], the port within 1..65535
bool is_authority(std::string_view text) {
    const bool bracketed = text.starts_with('[');
    const size_t host_end = bracketed ? text.find(']') : std::min(text.find(':'), text.size());
    if (host_end == std::string_view::npos || host_end == (bracketed ? 1 : 0)) {
        return false;
    }
    std::string_view port = text.substr(host_end + (bracketed ? 1 : 0));
    if (port.empty()) {
        return true;
    }
    if (port.front() != ':') {
        return false;
    }
    port.remove_prefix(1);
    uint16_t number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    return error == std::errc() && end == port.data() + port.size() && number != 0;
}

}  // namespace

bool is_report_name(std::string_view name) {
    return !name.empty() && name.size() <= kMaxReportNameBytes && !has_control_character(name);
}

bool is_engine_url(std::string_view url) {
    const size_t scheme = url.starts_with("http://") ? 7 : url.starts_with("https://") ? 8 : 0;
    const std::string_view rest = url.substr(scheme);
    return scheme != 0 && url.size() <= kMaxUrlBytes && !has_control_character(url) &&
           rest.find_first_of("/?#@ \"\\") == std::string_view::npos && is_authority(rest);
}

bool is_model_name(std::string_view name) {
    return !name.empty() && name.size() <= kMaxModelBytes && !has_control_character(name);
}

std::string_view to_string(EngineState state) {
    return kStateNames[static_cast<size_t>(state)];
}

std::string parse_engine_report(std::string_view text, EngineReport& out) {
    if (text.size() > kMaxReportBytes) {
        return "longer than 64 KiB";
    }
    const json object = json::parse(text, nullptr, false);
    if (object.is_discarded()) {
        return "not JSON";
    }
    if (!object.is_object()) {
        return "not a JSON object";
    }
    out = EngineReport{};
    Reader reader(object);
    uint64_t version = 0;
    reader.integer("v", true, 1, 1, version);
    reader.text("id", true, kMaxReportNameBytes, out.id);
    reader.text("url", true, kMaxUrlBytes, out.url);
    if (reader.error().empty() && !is_engine_url(out.url)) {
        reader.fail("url", "must be http(s)://host[:port]");
    }
    reader.models(out.models);
    read_state(reader, out);
    reader.integer("boot", true, 0, UINT64_MAX, out.boot);
    reader.integer("seq", true, 0, UINT64_MAX, out.seq);
    reader.integer("ttl_ms", true, 1, 3'600'000, out.ttl_ms);
    reader.text("org", false, kMaxReportNameBytes, out.org);
    reader.integer("max_running", false, 1, 1'000'000, out.max_running);
    reader.integer("max_context", false, 0, UINT32_MAX, out.max_context);
    reader.boolean("preempts", out.preempts);
    reader.integer("running", false, 0, UINT32_MAX, out.running);
    reader.integer("waiting", false, 0, UINT32_MAX, out.waiting);
    reader.number("kv_usage", 1.0, out.kv_usage);
    reader.number("uptime_s", kMaxCounter, out.uptime_s);
    reader.number("tokens_in", kMaxCounter, out.tokens_in);
    const bool has_tokens_out = reader.number("tokens_out", kMaxCounter, out.tokens_out);
    const bool has_decode = reader.number("decode_tokens", kMaxCounter, out.decode_tokens);
    if (!has_decode) {
        out.decode_tokens = out.tokens_out;
    }
    const bool has_seconds = reader.number("user_seconds", kMaxCounter, out.user_seconds);
    out.has_counters = has_seconds && (has_decode || has_tokens_out);
    reader.number("completed", kMaxCounter, out.completed);
    reader.number("tokens_per_second", kMaxCounter, out.tokens_per_second);
    reader.number("tokens_per_second_per_user", kMaxCounter, out.tokens_per_second_per_user);
    return reader.error();
}

std::string to_json(const EngineReport& report) {
    // ordered, so that people reading Redis find the fields where the documentation has them
    nlohmann::ordered_json out;
    out["v"] = 1;
    out["id"] = report.id;
    out["url"] = report.url;
    out["models"] = report.models;
    if (!report.org.empty()) {
        out["org"] = report.org;
    }
    out["state"] = to_string(report.state);
    out["boot"] = report.boot;
    out["seq"] = report.seq;
    out["ttl_ms"] = report.ttl_ms;
    out["max_running"] = report.max_running;
    if (report.max_context > 0) {
        out["max_context"] = report.max_context;
    }
    out["preempts"] = report.preempts;
    out["running"] = report.running;
    out["waiting"] = report.waiting;
    out["kv_usage"] = report.kv_usage;
    out["uptime_s"] = report.uptime_s;
    out["tokens_in"] = static_cast<uint64_t>(report.tokens_in);
    out["tokens_out"] = static_cast<uint64_t>(report.tokens_out);
    if (report.has_counters) {
        out["decode_tokens"] = static_cast<uint64_t>(report.decode_tokens);
        out["user_seconds"] = report.user_seconds;
    }
    out["completed"] = static_cast<uint64_t>(report.completed);
    out["tokens_per_second"] = report.tokens_per_second;
    out["tokens_per_second_per_user"] = report.tokens_per_second_per_user;
    return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace llm
