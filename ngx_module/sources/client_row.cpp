#include "ngx_module/sources/client_row.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "ngx_module/core/text/bearer.hpp"
#include "ngx_module/core/text/string_skip.hpp"

namespace llm::nginx::sources {
namespace {

constexpr std::array<std::string_view, kColumnCount> kNames = {
    "id",         "token",     "name",        "organization",         "email",
    "priority",   "threshold", "client_type", "default_routing_mode", "token_sha256",
    "weight",     "band",      "max_running", "tokens_per_minute",    "models",
    "expires_at", "disabled"};

constexpr double kMaxWeight = 1e6;

bool has_control(std::string_view text) {
    return std::any_of(text.begin(), text.end(),
                       [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

std::string_view trim(std::string_view text) {
    const char* blanks = " \t\r\n";
    const size_t begin = text.find_first_not_of(blanks);
    if (begin == std::string_view::npos) {
        return {};
    }
    return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

template <class Number>
bool parse_number(std::string_view text, Number& out) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    return error == std::errc() && end == text.data() + text.size();
}

// A table may keep whole numbers in a numeric or floating column: "5.0" is 5.
bool parse_integer(std::string_view text, int64_t& out) {
    text = trim(text);
    const size_t dot = text.find('.');
    if (dot != std::string_view::npos) {
        if (text.find_first_not_of('0', dot + 1) != std::string_view::npos) {
            return false;
        }
        text = text.substr(0, dot);
    }
    return parse_number(text, out);
}

// Cuts before the character that would not fit whole.
std::string_view cut_utf8(std::string_view text, size_t limit) {
    if (text.size() <= limit) {
        return text;
    }
    size_t end = limit;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) {
        --end;
    }
    return text.substr(0, end);
}

std::string parse_token(const RawRow& row, ClientRecord& out) {
    const auto& plain = row[Column::token];
    const auto& hashed = row[Column::token_sha256];
    if (hashed && !from_hex(trim(*hashed), out.token)) {
        return "token_sha256: not 64 hexadecimal digits";
    }
    if (!plain) {
        return hashed ? "" : "token: missing";
    }
    if (plain->empty() || plain->size() > core::kMaxBearerToken) {
        return "token: empty, or longer than " + std::to_string(core::kMaxBearerToken) + " bytes";
    }
    // such a token could never arrive in a header: better said here than found out by its owner
    if (!core::is_bearer_token(*plain)) {
        return "token: holds a blank, a control character or one that is not ASCII";
    }
    const TokenHash hash = hash_token(*plain);
    if (hashed && hash != out.token) {
        return "token and token_sha256 disagree";
    }
    out.token = hash;
    return {};
}

// Why a text cannot be shown or compared; empty if it can.
std::string_view why_unusable(std::string_view text) {
    if (has_control(text)) {
        return "holds a control character";
    }
    // a database without an encoding of its own (SQL_ASCII) keeps whatever bytes it was given
    return core::is_valid_utf8(text) ? "" : "not UTF-8";
}

// What clients are called in logs and metrics.
std::string name_of(std::string_view name, std::string_view email, std::string_view id, uint64_t position) {
    for (const std::string_view text : {name, trim(email)}) {
        if (!text.empty() && why_unusable(text).empty()) {
            return std::string(cut_utf8(text, core::kMaxNameBytes));
        }
    }
    return "client-" + (id.empty() ? std::to_string(position) : std::string(id));
}

std::string parse_texts(const RawRow& row, uint64_t position, ClientRecord& out) {
    const auto text = [&row](Column column) { return row[column].value_or(std::string_view{}); };
    const std::string_view name = trim(text(Column::name));
    for (const auto& [column, value] :
         {std::pair{Column::id, text(Column::id)}, std::pair{Column::name, name},
          std::pair{Column::organization, text(Column::organization)},
          std::pair{Column::default_routing_mode, text(Column::default_routing_mode)}}) {
        if (const std::string_view why = why_unusable(value); !why.empty()) {
            return std::string(to_string(column)) + ": " + std::string(why);
        }
    }
    if (text(Column::id).size() > kMaxRowIdBytes) {
        return "id: longer than " + std::to_string(kMaxRowIdBytes) + " bytes";
    }
    // cut, two organisations might look the same
    if (text(Column::organization).size() > core::kMaxOrgBytes) {
        return "organization: longer than " + std::to_string(core::kMaxOrgBytes) + " bytes";
    }
    out.id = text(Column::id);
    out.organization = text(Column::organization);
    out.chat = text(Column::client_type) == "chat";
    out.name = name_of(name, text(Column::email), out.id, position);
    const std::string_view mode = text(Column::default_routing_mode);
    out.routing = core::RoutingMode::any;
    if (!mode.empty() && !core::parse_routing_mode(mode, out.routing)) {
        return "default_routing_mode: must be any, private-first or private-only";
    }
    return {};
}

// An optional count: NULL is 0, more than the type holds is as good as the largest.
template <class Count>
std::string parse_count(const RawRow& row, Column column, Count& out) {
    out = 0;
    if (!row[column]) {
        return {};
    }
    int64_t value = 0;
    if (!parse_integer(*row[column], value) || value < 0) {
        return std::string(to_string(column)) + ": not an integer of 0 or more";
    }
    constexpr uint64_t kLargest = std::numeric_limits<Count>::max();
    out = static_cast<Count>(std::min<uint64_t>(static_cast<uint64_t>(value), kLargest));
    return {};
}

std::string parse_numbers(const RawRow& row, ClientRecord& out) {
    int64_t value = 0;
    const auto& priority = row[Column::priority];
    if (!priority) {
        return "priority: missing";
    }
    if (!parse_integer(*priority, value) || value < 0) {
        return "priority: not an integer of 0 or more";
    }
    out.priority = static_cast<int32_t>(std::min<int64_t>(value, core::kMaxPriority));

    out.band = 0;
    if (const auto& band = row[Column::band]) {
        if (!parse_integer(*band, value)) {
            return "band: not an integer";
        }
        out.band = static_cast<int32_t>(std::clamp<int64_t>(value, -core::kMaxBand, core::kMaxBand));
    }
    out.weight = 0;
    if (const auto& weight = row[Column::weight]) {
        if (!parse_number(trim(*weight), out.weight) || !std::isfinite(out.weight) || out.weight <= 0 ||
            out.weight > kMaxWeight) {
            return "weight: not a number above 0 and at most 1000000";
        }
    }
    std::string error = parse_count(row, Column::threshold, out.threshold);
    if (error.empty()) {
        error = parse_count(row, Column::max_running, out.max_running);
    }
    if (error.empty()) {
        error = parse_count(row, Column::tokens_per_minute, out.tokens_per_minute);
    }
    return error;
}

std::string parse_models(const RawRow& row, ClientRecord& out) {
    std::vector<std::string> models;
    if (row.models != nullptr) {
        models = *row.models;
    } else if (row[Column::models] && !parse_list(*row[Column::models], models)) {
        return "models: neither a text[], nor a comma list, nor a JSON array of strings";
    }
    out.models.clear();
    for (const std::string& model : models) {
        if (model.empty() || model.size() > core::kMaxModelBytes || has_control(model) || !core::is_valid_utf8(model) ||
            model.find(',') != std::string::npos) {
            return "models: a name is empty, longer than " + std::to_string(core::kMaxModelBytes) +
                   " bytes, not UTF-8, or holds a comma or a control character";
        }
        out.models += (out.models.empty() ? "" : ",") + model;
    }
    if (out.models.size() > core::kMaxModelListBytes) {
        return "models: more than " + std::to_string(core::kMaxModelListBytes) + " bytes in all";
    }
    return {};
}

std::string parse_validity(const RawRow& row, ClientRecord& out) {
    out.expires_at = 0;
    if (row[Column::expires_at] && !parse_time(trim(*row[Column::expires_at]), out.expires_at)) {
        return "expires_at: neither an ISO 8601 time nor seconds since 1970";
    }
    const std::optional<bool> disabled = row[Column::disabled] ? parse_flag(*row[Column::disabled]) : false;
    out.disabled = disabled.value_or(false);
    return disabled ? "" : "disabled: not a boolean";
}

// Days from 1970-01-01 to a date of the Gregorian calendar (H. Hinnant, "chrono-Compatible Low-Level Date
// Algorithms").
int64_t days_from_civil(int64_t year, unsigned month, unsigned day) {
    year -= month <= 2;
    const int64_t era = (year >= 0 ? year : year - 399) / 400;
    const auto year_of_era = static_cast<unsigned>(year - era * 400);
    const unsigned day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    const unsigned day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + static_cast<int64_t>(day_of_era) - 719468;
}

unsigned days_in_month(unsigned year, unsigned month) {
    constexpr std::array<uint8_t, 12> kDays = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : kDays[month - 1];
}

// Takes exactly `digits` digits off the front.
bool take(std::string_view& text, size_t digits, unsigned& out) {
    if (text.size() < digits || !parse_number(text.substr(0, digits), out)) {
        return false;
    }
    text.remove_prefix(digits);
    return true;
}

bool take(std::string_view& text, char expected) {
    if (text.empty() || text.front() != expected) {
        return false;
    }
    text.remove_prefix(1);
    return true;
}

// "hh:mm[:ss[.fff]]"
bool take_time_of_day(std::string_view& text, int64_t& out_s) {
    unsigned hour = 0;
    unsigned minute = 0;
    unsigned second = 0;
    if (!take(text, 2, hour) || !take(text, ':') || !take(text, 2, minute)) {
        return false;
    }
    if (take(text, ':') && !take(text, 2, second)) {
        return false;
    }
    if (take(text, '.')) {  // fractions do not matter
        const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
        if (digits == 0) {
            return false;
        }
        text.remove_prefix(digits);
    }
    if (hour > 24 || minute > 59 || second > 60) {  // 24:00 and leap seconds are legal
        return false;
    }
    out_s = (int64_t{hour} * 60 + minute) * 60 + second;
    return true;
}

// "Z", "+02", "+0200", "+02:00" or nothing.
bool take_zone(std::string_view text, int64_t& out_s) {
    out_s = 0;
    if (text.empty() || text == "Z" || text == "z") {
        return true;
    }
    const bool west = text.front() == '-';
    if (!west && text.front() != '+') {
        return false;
    }
    text.remove_prefix(1);
    unsigned hours = 0;
    unsigned minutes = 0;
    if (!take(text, 2, hours)) {
        return false;
    }
    const bool colon = take(text, ':');
    if ((colon || !text.empty()) && !take(text, 2, minutes)) {
        return false;
    }
    if (!text.empty() || hours > 18 || minutes > 59) {
        return false;
    }
    out_s = (int64_t{hours} * 60 + minutes) * (west ? -60 : 60);
    return true;
}

}  // namespace

std::string_view to_string(Column column) {
    return kNames[static_cast<size_t>(column)];
}

std::optional<Column> column_by_name(std::string_view name) {
    const auto* found = std::find(kNames.begin(), kNames.end(), name);
    if (found == kNames.end()) {
        return std::nullopt;
    }
    return static_cast<Column>(found - kNames.begin());
}

core::ClientRow ClientRecord::row() const {
    core::ClientRow row;
    row.hash = token;
    row.row_id = row_number(id);
    row.name = name;
    row.organisation = organization;
    row.models = models;
    row.priority = priority;
    row.weight = weight;
    row.band = band;
    row.threshold = threshold;
    row.max_running = max_running;
    row.tokens_per_minute = tokens_per_minute;
    row.expires_at = expires_at;
    row.disabled = disabled;
    row.chat = chat;
    row.default_mode = routing;
    return row;
}

int64_t row_number(std::string_view id) {
    int64_t number = 0;
    if (id.empty() || (parse_number(id, number) && number != 0)) {
        return number;
    }
    const TokenHash hash = hash_token(id);
    for (size_t i = 0; i < 8; ++i) {
        number = number << 8 | hash[i];
    }
    return number & std::numeric_limits<int64_t>::max();
}

std::string parse_client_row(const RawRow& row, uint64_t position, ClientRecord& out) {
    std::string error = parse_token(row, out);
    if (error.empty()) {
        error = parse_texts(row, position, out);
    }
    if (error.empty()) {
        error = parse_numbers(row, out);
    }
    if (error.empty()) {
        error = parse_models(row, out);
    }
    if (error.empty()) {
        error = parse_validity(row, out);
    }
    return error;
}

bool parse_time(std::string_view text, int64_t& out_s) {
    if (text == "infinity" || text == "Infinity") {
        out_s = 0;
        return true;
    }
    if (text == "-infinity" || text == "-Infinity") {
        out_s = 1;  // long ago
        return true;
    }
    double seconds = 0;
    if (parse_number(text, seconds)) {
        if (!std::isfinite(seconds) || std::abs(seconds) > 1e12) {
            return false;
        }
        out_s = std::max<int64_t>(1, static_cast<int64_t>(std::floor(seconds)));
        return true;
    }
    unsigned year = 0;
    unsigned month = 0;
    unsigned day = 0;
    if (!take(text, 4, year) || !take(text, '-') || !take(text, 2, month) || !take(text, '-') ||
        !take(text, 2, day) || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month)) {
        return false;
    }
    int64_t time_of_day = 0;
    int64_t zone = 0;
    if (!text.empty()) {
        if (text.front() != 'T' && text.front() != 't' && text.front() != ' ') {
            return false;
        }
        text.remove_prefix(1);
        if (!take_time_of_day(text, time_of_day) || !take_zone(text, zone)) {
            return false;
        }
    }
    out_s = std::max<int64_t>(1, days_from_civil(year, month, day) * 86'400 + time_of_day - zone);
    return true;
}

std::optional<bool> parse_flag(std::string_view text) {
    text = trim(text);
    if (text == "t" || text == "true" || text == "1") {
        return true;
    }
    if (text == "f" || text == "false" || text == "0") {
        return false;
    }
    return std::nullopt;
}

bool parse_list(std::string_view text, std::vector<std::string>& out) {
    out.clear();
    text = trim(text);
    if (text.starts_with('[')) {
        const auto array = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
        if (array.is_discarded() ||
            !std::all_of(array.begin(), array.end(), [](const auto& item) { return item.is_string(); })) {
            return false;
        }
        array.get_to(out);
        return true;
    }
    if (!text.starts_with('{')) {
        while (!text.empty()) {
            const size_t comma = std::min(text.find(','), text.size());
            const std::string_view item = trim(text.substr(0, comma));
            if (!item.empty()) {
                out.emplace_back(item);
            }
            text.remove_prefix(std::min(comma + 1, text.size()));
        }
        return true;
    }
    // array_out(): elements are quoted where they hold a comma, a brace, a quote, a backslash or a blank
    if (!text.ends_with('}') || text.size() < 2) {
        return false;
    }
    text = text.substr(1, text.size() - 2);
    if (trim(text).empty()) {
        return true;
    }
    for (size_t i = 0;;) {
        std::string item;
        if (i < text.size() && text[i] == '"') {
            for (++i; i < text.size() && text[i] != '"'; ++i) {
                if (text[i] == '\\' && ++i == text.size()) {
                    return false;
                }
                item += text[i];
            }
            if (i == text.size()) {
                return false;
            }
            ++i;
        } else {
            const size_t end = std::min(text.find_first_of(",{}\"\\", i), text.size());
            item = trim(text.substr(i, end - i));
            i = end;
            if (item.empty() || item == "NULL") {
                return false;
            }
        }
        out.push_back(std::move(item));
        if (i == text.size()) {
            return true;
        }
        if (text[i] != ',') {
            return false;
        }
        ++i;
    }
}

}  // namespace llm::nginx::sources
