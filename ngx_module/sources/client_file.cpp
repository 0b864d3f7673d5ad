#include "ngx_module/sources/client_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>
#include <unordered_set>

namespace llm::nginx::sources {
namespace {

using nlohmann::json;

constexpr size_t kMaxSkippedListed = 100;

// Feeds the parser and lets its listener see how far it has read: rows are named by their line.
struct Cursor {
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;

    const char* at = nullptr;
    const char** reached = nullptr;

    reference operator*() const { return *at; }
    Cursor& operator++() {
        *reached = ++at;
        return *this;
    }
    Cursor operator++(int) {
        Cursor before = *this;
        ++*this;
        return before;
    }
    bool operator==(const Cursor& other) const { return at == other.at; }
    bool operator!=(const Cursor& other) const { return at != other.at; }
};

// What JSON types a column takes.
struct Accepts {
    bool text = false;
    bool integer = false;
    bool number = false;  // with a fraction
    bool boolean = false;
    bool list = false;
};

Accepts accepts(Column column) {
    switch (column) {
        case Column::id:
            return {.text = true, .integer = true};
        case Column::priority:
        case Column::threshold:
        case Column::band:
        case Column::max_running:
        case Column::tokens_per_minute:
            return {.integer = true, .number = true};  // 5.0 is 5: the row's validation decides
        case Column::weight:
            return {.integer = true, .number = true};
        case Column::expires_at:
            return {.text = true, .integer = true, .number = true};
        case Column::disabled:
            return {.boolean = true};
        case Column::models:
            return {.text = true, .list = true};
        default:
            return {.text = true};
    }
}

struct HashOfToken {
    size_t operator()(const TokenHash& hash) const {
        size_t value = 0;
        std::memcpy(&value, hash.data(), sizeof(value));
        return value;
    }
};

// Listens to the parser; builds rows as they end. Any callback that returns false ends the parse with
// `error_`.
class Listener : public nlohmann::json_sax<json> {
  public:
    Listener(std::string_view text, const char* const* reached)
        : reached_(reached), counted_(text.data()), line_start_(text.data()) {}

    std::string error() && { return std::move(error_); }
    std::vector<ClientRecord> clients() && { return std::move(clients_); }
    std::vector<std::string> skipped() && {
        if (skipped_count_ > skipped_.size()) {
            skipped_.push_back("and " + std::to_string(skipped_count_ - skipped_.size()) + " more");
        }
        return std::move(skipped_);
    }

    bool null() override { return place_ == Place::row ? (take_column(), true) : scalar("null"); }
    bool boolean(bool value) override {
        if (place_ != Place::row) {
            return scalar("a boolean");
        }
        return store(value ? "true" : "false", &Accepts::boolean);
    }
    bool number_integer(json::number_integer_t value) override {
        return place_ == Place::row ? store(std::to_string(value), &Accepts::integer) : scalar("a number");
    }
    bool number_unsigned(json::number_unsigned_t value) override {
        return place_ == Place::row ? store(std::to_string(value), &Accepts::integer) : scalar("a number");
    }
    bool number_float(json::number_float_t, const std::string& digits) override {
        return place_ == Place::row ? store(digits, &Accepts::number) : scalar("a number");
    }
    bool string(std::string& value) override {
        if (place_ == Place::models) {
            models_.push_back(std::move(value));
            return true;
        }
        return place_ == Place::row ? store(std::move(value), &Accepts::text) : scalar("a string");
    }
    bool binary(json::binary_t&) override { return false; }  // not in JSON

    bool start_object(std::size_t) override {
        if (ignored_depth_ > 0) {
            ++ignored_depth_;
            return true;
        }
        switch (place_) {
            case Place::outside:
                place_ = Place::top;
                return true;
            case Place::users:
                begin_row();
                return true;
            default:
                return start_ignored("an object");
        }
    }
    bool end_object() override {
        if (end_ignored()) {
            return true;
        }
        if (place_ == Place::row) {
            end_row();
            place_ = Place::users;
        } else {
            place_ = Place::outside;
            if (!seen_users_) {
                return fail("there is no \"users\"");
            }
        }
        return true;
    }
    bool start_array(std::size_t) override {
        if (ignored_depth_ > 0) {
            ++ignored_depth_;
            return true;
        }
        if (place_ == Place::top && at_users_) {
            place_ = Place::users;
            at_users_ = false;
            return true;
        }
        if (place_ == Place::row && column_ && accepts(*column_).list) {
            place_ = Place::models;
            has_models_ = true;
            take_column();
            return true;
        }
        return start_ignored("an array");
    }
    bool end_array() override {
        if (!end_ignored()) {
            place_ = place_ == Place::models ? Place::row : Place::top;
        }
        return true;
    }
    bool key(std::string& name) override {
        if (ignored_depth_ > 0) {
            return true;
        }
        if (place_ == Place::top) {
            at_users_ = name == "users";
            if (at_users_ && std::exchange(seen_users_, true)) {
                return fail("\"users\" is there twice");
            }
            return true;
        }
        column_ = column_by_name(name);
        if (column_) {
            const auto bit = uint32_t{1} << static_cast<unsigned>(*column_);
            if ((seen_columns_ & bit) != 0) {
                row_error(std::string(to_string(*column_)) + ": is there twice");
            }
            seen_columns_ |= bit;
        }
        return true;
    }
    bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& problem) override {
        if (error_.empty()) {
            // Its text reads "[…] parse error at line 1, column 2: REASON; last read: '…'". What was read
            // last may be a token, and the position is ours to say in one form everywhere.
            std::string_view reason = problem.what();
            reason = reason.substr(0, reason.find("; last read"));
            const size_t colon = reason.find(": ");
            if (colon != std::string_view::npos) {
                reason.remove_prefix(colon + 2);
            }
            fail(std::string(reason));
        }
        return false;
    }

  private:
    enum class Place : uint8_t { outside, top, users, row, models };

    bool fail(std::string reason) {
        advance();
        error_ = "line " + std::to_string(line_) + ", column " +
                 std::to_string(std::max<std::ptrdiff_t>(1, *reached_ - line_start_)) + ": " +
                 std::move(reason);
        return false;
    }

    // Counts lines up to the byte that the parser read last; a newline there still ends its line.
    void advance() {
        for (; counted_ + 1 < *reached_; ++counted_) {
            if (*counted_ == '\n') {
                ++line_;
                line_start_ = counted_ + 1;
            }
        }
    }

    // A value where no row's column is waiting for one.
    bool scalar(const char* what) {
        if (ignored_depth_ > 0) {
            return true;
        }
        switch (place_) {
            case Place::outside:
                return fail(std::string("expected an object with \"users\", found ") + what);
            case Place::users:
                return fail(std::string("every member of \"users\" must be an object, found ") + what);
            case Place::models:
                row_error("models: not a list of strings");
                return true;
            default:
                return !at_users_ || fail(std::string("\"users\" must be an array, found ") + what);
        }
    }

    bool start_ignored(const char* what) {
        if (place_ == Place::row) {
            if (column_) {
                row_error(std::string(to_string(*column_)) + ": " + what);
                take_column();
            }
        } else if (!scalar(what)) {
            return false;
        }
        ignored_depth_ = 1;
        return true;
    }

    bool end_ignored() {
        if (ignored_depth_ == 0) {
            return false;
        }
        --ignored_depth_;
        return true;
    }

    void begin_row() {
        advance();
        row_line_ = line_;
        place_ = Place::row;
        seen_columns_ = 0;
        given_columns_ = 0;
        has_models_ = false;
        models_.clear();
        row_error_.clear();
    }

    std::optional<Column> take_column() { return std::exchange(column_, std::nullopt); }

    bool store(std::string value, bool Accepts::*type) {
        if (ignored_depth_ > 0) {
            return true;
        }
        const std::optional<Column> column = take_column();
        if (column) {
            if (accepts(*column).*type) {
                values_[static_cast<size_t>(*column)] = std::move(value);
                given_columns_ |= uint32_t{1} << static_cast<unsigned>(*column);
            } else {
                row_error(std::string(to_string(*column)) + ": a value of this type is not allowed");
            }
        }
        return true;
    }

    void row_error(std::string reason) {
        if (row_error_.empty()) {
            row_error_ = std::move(reason);
        }
    }

    void end_row() {
        ++position_;
        ClientRecord record;
        if (row_error_.empty()) {
            RawRow row;
            for (size_t i = 0; i < kColumnCount; ++i) {
                if ((given_columns_ >> i & 1) != 0) {
                    row.text[i] = values_[i];
                }
            }
            row.models = has_models_ ? &models_ : nullptr;
            row_error_ = parse_client_row(row, position_, record);
        }
        if (row_error_.empty() && !tokens_.insert(record.token).second) {
            row_error_ = "this token was there before";
        }
        if (row_error_.empty()) {
            clients_.push_back(std::move(record));
            return;
        }
        if (++skipped_count_ <= kMaxSkippedListed) {
            skipped_.push_back("line " + std::to_string(row_line_) + ": " + row_error_);
        }
    }

    const char* const* reached_;
    const char* counted_;
    const char* line_start_;
    size_t line_ = 1;

    Place place_ = Place::outside;
    uint32_t ignored_depth_ = 0;  // inside a value that nobody asked for
    bool at_users_ = false;       // the value of "users" comes next
    bool seen_users_ = false;
    std::string error_;

    std::optional<Column> column_;
    uint32_t seen_columns_ = 0;
    uint32_t given_columns_ = 0;
    std::array<std::string, kColumnCount> values_;
    bool has_models_ = false;
    std::vector<std::string> models_;
    std::string row_error_;
    size_t row_line_ = 0;
    uint64_t position_ = 0;

    std::vector<ClientRecord> clients_;
    std::unordered_set<TokenHash, HashOfToken> tokens_;
    std::vector<std::string> skipped_;
    size_t skipped_count_ = 0;
};

class Descriptor {
  public:
    explicit Descriptor(int fd) : fd_(fd) {}
    ~Descriptor() {
        if (fd_ >= 0) {
            close(fd_);
        }
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const { return fd_; }

  private:
    int fd_;
};

FileSignature signature_of(const struct stat& info) {
    return {.device = info.st_dev,
            .inode = info.st_ino,
            .size = info.st_size,
            .modified_ns = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec};
}

std::string errno_text(const std::string& path, const char* what) {
    const int error = errno;
    return path + ": " + what + " failed (" + std::to_string(error) + ": " + std::strerror(error) + ")";
}

}  // namespace

FileSignature file_signature(const std::string& path) {
    struct stat info {};
    return stat(path.c_str(), &info) == 0 ? signature_of(info) : FileSignature{};
}

std::string parse_client_file(std::string_view text, ClientFile& out) {
    const char* reached = text.data();
    Listener listener(text, &reached);
    const Cursor first{text.data(), &reached};
    const Cursor last{text.data() + text.size(), &reached};
    if (!json::sax_parse(first, last, &listener)) {
        std::string error = std::move(listener).error();
        return error.empty() ? "not JSON" : error;
    }
    if (const size_t zero = text.find('\0'); zero != std::string_view::npos) {  // the parser takes it for the end
        const auto line = 1 + std::count(text.begin(), text.begin() + zero, '\n');
        return "line " + std::to_string(line) + ": a byte 0 after the end";
    }
    out.clients = std::move(listener).clients();
    out.skipped = std::move(listener).skipped();
    return {};
}

std::string read_client_file(const std::string& path, ClientFile& out) {
    const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (file.get() < 0) {
        return errno_text(path, "open()");
    }
    struct stat info {};
    if (fstat(file.get(), &info) != 0) {
        return errno_text(path, "fstat()");
    }
    if (!S_ISREG(info.st_mode)) {
        return path + ": not a regular file";
    }
    if (static_cast<uint64_t>(info.st_size) > kMaxClientFileBytes) {
        return path + ": larger than " + std::to_string(kMaxClientFileBytes >> 20) + " MiB";
    }
    std::string text(static_cast<size_t>(info.st_size), '\0');
    size_t filled = 0;
    while (filled < text.size()) {
        const ssize_t got = read(file.get(), text.data() + filled, text.size() - filled);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return errno_text(path, "read()");
        }
        if (got == 0) {
            break;  // it was cut meanwhile: the parser will say so
        }
        filled += static_cast<size_t>(got);
    }
    text.resize(filled);
    out.signature = signature_of(info);
    const std::string error = parse_client_file(text, out);
    return error.empty() ? error : path + ": " + error;
}

}  // namespace llm::nginx::sources
