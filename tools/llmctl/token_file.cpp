// Clients in a token file: {"users": [{…}, …]}. Replaced in one step, so that a reader never sees half of it.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "ngx_module/sources/client_file.hpp"
#include "shared/json.hpp"
#include "tools/llmctl/failure.hpp"
#include "tools/llmctl/text.hpp"
#include "tools/llmctl/token_store.hpp"

namespace llm::ctl {
namespace {

using nginx::sources::column_by_name;
using nginx::sources::parse_flag;
using nginx::sources::parse_list;
using nginx::sources::to_string;

[[noreturn]] void fail(const std::string& path, const std::string& what, int error = errno) {
    throw Failure(error == ENOENT ? Exit::not_found : Exit::refused,
                  path + ": " + what + ": " + std::strerror(error));
}

class Descriptor {
  public:
    explicit Descriptor(int fd = -1) : fd_(fd) {}
    ~Descriptor() {
        if (fd_ >= 0) {
            close(fd_);
        }
    }
    Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    int get() const { return fd_; }

  private:
    int fd_;
};

// A file's columns have the types of JSON.
Json typed(Column column, const std::string& text) {
    switch (column) {
        case Column::priority:
        case Column::threshold:
        case Column::weight:
        case Column::band:
        case Column::max_running:
        case Column::tokens_per_minute: {
            const Json number = Json::parse(text, nullptr, false);
            return number.is_number() ? number : Json(text);
        }
        case Column::disabled:
            return parse_flag(text).value_or(true);  // one that is none has been refused
        case Column::models: {
            std::vector<std::string> models;
            parse_list(text, models);
            return models;
        }
        default:
            return text;
    }
}

Value text_of(const Json& value) {
    if (value.is_null()) {
        return {};
    }
    if (value.is_string()) {
        return value.get<std::string>();
    }
    if (value.is_array()) {
        std::string out;
        for (const Json& item : value) {
            out += (out.empty() ? "" : ",") + (item.is_string() ? item.get<std::string>() : item.dump());
        }
        return out.empty() ? Value() : Value(out);
    }
    return value.dump();
}

// Why a gateway skips this member of "users", in its own words; empty when it takes it.
std::string why_skipped(const Json& user) {
    nginx::sources::ClientFile one;
    std::string why = nginx::sources::parse_client_file(Json{{"users", Json::array({user})}}.dump(), one);
    if (!one.skipped.empty()) {
        why = one.skipped.front();
        why.erase(0, why.find(": ") + 2);  // the line
    }
    return why;
}

class TokenFile : public TokenStore {
  public:
    TokenFile(const std::string& path, bool for_change, bool create) : path_(path) {
        // a link stays a link: what it names is replaced
        if (char* real = realpath(path.c_str(), nullptr)) {
            path_ = real;
            std::free(real);
        } else if (errno != ENOENT || !create || !for_change) {
            fail(path_, for_change && errno == ENOENT ? "cannot be opened (--create makes a new one)"
                                                      : "cannot be opened");
        }
        lock_and_read(for_change, create);
    }

    std::string place() const override { return path_; }
    bool has(Column) const override { return true; }
    bool stores_hashes() const override { return true; }
    void make_room_for_hashes() override {}
    void lock() override {}  // since it was opened

    std::vector<StoredClient> all() override {
        std::vector<StoredClient> out;
        const Json& users = content_["users"];
        for (size_t i = 0; i < users.size(); ++i) {
            StoredClient client;
            client.key = std::to_string(i);
            client.wrong = why_skipped(users[i]);
            for (const auto& [name, value] : users[i].items()) {
                if (const auto column = column_by_name(name)) {
                    client.values[*column] = text_of(value);
                }
            }
            out.push_back(std::move(client));
        }
        return out;
    }

    std::string insert(const ClientValues& values) override {
        Json user = Json::object();
        for (size_t i = 0; i < kColumnCount; ++i) {
            const auto column = static_cast<Column>(i);
            if (values[column]) {
                user[std::string(to_string(column))] = typed(column, *values[column]);
            }
        }
        content_["users"].push_back(std::move(user));
        return values[Column::id].value_or("");
    }

    void update(const std::string& key, const Changes& changes) override {
        Json& user = content_["users"][std::strtoull(key.c_str(), nullptr, 10)];
        for (const auto& [column, value] : changes) {
            const std::string name(to_string(column));
            if (value) {
                user[name] = typed(column, *value);
            } else {
                user.erase(name);
            }
        }
    }

    // A key is a position: those of others stay what they are until commit().
    void remove(const std::string& key) override {
        content_["users"][std::strtoull(key.c_str(), nullptr, 10)] = Json();
    }

    void commit() override {
        Json& users = content_["users"];
        users.erase(std::remove(users.begin(), users.end(), Json()), users.end());
        const std::string text = content_.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
        std::string scratch = path_ + ".XXXXXX";
        const Descriptor file(mkstemp(scratch.data()));
        if (file.get() < 0) {
            fail(scratch, "cannot be made");
        }
        size_t written = 0;
        // Owner and group are kept where we may: a file of another user that becomes root's could not be read any more. The group
        // must be kept where it has rights that others lack: the gateway's workers read by them.
        const bool group_counts = (mode_ >> 3 & 07 & ~mode_) != 0;
        if (fchown(file.get(), owner_, group_) != 0 &&
            fchown(file.get(), static_cast<uid_t>(-1), group_) != 0 && group_counts) {
            const int error = errno;
            unlink(scratch.c_str());
            fail(path_, "its group cannot be kept, and no other may read it", error);
        }
        bool good = fchmod(file.get(), mode_) == 0;
        while (good && written < text.size()) {
            const ssize_t done = write(file.get(), text.data() + written, text.size() - written);
            good = done > 0 || (done < 0 && errno == EINTR);
            written += done > 0 ? static_cast<size_t>(done) : 0;
        }
        good = good && fsync(file.get()) == 0 && rename(scratch.c_str(), path_.c_str()) == 0;
        if (!good) {
            const int error = errno;
            unlink(scratch.c_str());
            fail(path_, "cannot be written", error);
        }
    }

  private:
    // Two changes at once follow each other: the lock is on the file itself, which may have been replaced
    // while we waited.
    void lock_and_read(bool for_change, bool create) {
        for (;;) {
            file_ = Descriptor(open(path_.c_str(), O_RDONLY | O_CLOEXEC | (create ? O_CREAT : 0), 0640));
            if (file_.get() < 0) {
                fail(path_, "cannot be opened");
            }
            if (for_change && flock(file_.get(), LOCK_EX) != 0) {
                fail(path_, "cannot be locked");
            }
            struct stat ours {};
            struct stat now {};
            if (fstat(file_.get(), &ours) != 0) {
                fail(path_, "cannot be read");
            }
            if (!for_change || (stat(path_.c_str(), &now) == 0 && now.st_ino == ours.st_ino)) {
                mode_ = ours.st_mode & 07777;
                owner_ = ours.st_uid;
                group_ = ours.st_gid;
                break;
            }
        }
        std::string text;
        char buffer[65536];
        ssize_t got = 0;
        while ((got = read(file_.get(), buffer, sizeof buffer)) > 0) {
            text.append(buffer, static_cast<size_t>(got));
        }
        if (got < 0) {
            fail(path_, "cannot be read");
        }
        if (text.empty() && create) {
            content_ = {{"users", Json::array()}};
            return;
        }
        check(text, for_change);
        content_ = Json::parse(text);
    }

    // By the gateway's own rules; of what stands there twice ours would keep one and drop the other.
    void check(const std::string& text, bool for_change) const {
        nginx::sources::ClientFile file;
        const std::string why = nginx::sources::parse_client_file(text, file);
        if (!why.empty()) {
            throw Failure(Exit::refused,
                          path_ + ": not a token file: " + why + "; expected {\"users\": [{…}, …]}");
        }
        for (const std::string& skipped : file.skipped) {
            if (for_change && skipped.ends_with("is there twice")) {
                throw Failure(Exit::refused, path_ + ": " + skipped + "; nothing was changed");
            }
        }
    }

    std::string path_;
    Descriptor file_;
    mode_t mode_ = 0640;
    uid_t owner_ = 0;
    gid_t group_ = 0;
    Json content_;
};

}  // namespace

std::unique_ptr<TokenStore> open_file(const std::string& path, bool for_change, bool create) {
    return std::make_unique<TokenFile>(path, for_change, create);
}

}  // namespace llm::ctl
