#include "engine_worker/server/redis_client.hpp"

#include <hiredis/hiredis.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string_view>
#include <system_error>

namespace llm::engine {
namespace {

constexpr timeval kTimeout = {1, 0};

struct FreeReply {
    void operator()(void* reply) const { freeReplyObject(reply); }
};

}  // namespace

std::string RedisClient::why_of_errno() const {
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return "no answer within " + std::to_string(kTimeout.tv_sec) + " s";
    }
    return tls_ && !tls_->problem().empty() ? "TLS: " + tls_->problem()
                                            : std::generic_category().message(errno);
}

void RedisClient::close() {
    tls_.reset();
    if (context_ != nullptr) {
        redisFree(context_);
        context_ = nullptr;
    }
}

std::string RedisClient::connect() {
    context_ = url_.socket_path.empty() ? redisConnectWithTimeout(url_.host.c_str(), url_.port, kTimeout)
                                        : redisConnectUnixWithTimeout(url_.socket_path.c_str(), kTimeout);
    if (context_ == nullptr || context_->err != 0) {
        return context_ == nullptr ? "out of memory" : context_->errstr;
    }
    redisSetTimeout(context_, kTimeout);
    if (url_.tls) {
        const std::string why = tls_.emplace().open(context_->fd, url_.host);
        if (!why.empty()) {
            return why;
        }
    }
    std::vector<Command> login;
    if (!url_.password.empty()) {
        login.push_back(url_.user.empty() ? Command{"AUTH", url_.password}
                                          : Command{"AUTH", url_.user, url_.password});
    }
    if (url_.database != 0) {
        login.push_back({"SELECT", std::to_string(url_.database)});
    }
    return exchange(login);
}

std::string RedisClient::send(const Command& command) {
    std::vector<const char*> words;
    std::vector<size_t> sizes;
    for (const std::string& word : command) {
        words.push_back(word.data());
        sizes.push_back(word.size());
    }
    char* text = nullptr;
    const auto size =
        redisFormatCommandArgv(&text, static_cast<int>(words.size()), words.data(), sizes.data());
    const std::unique_ptr<char, void (*)(char*)> owner(text, redisFreeCommand);
    if (size < 0) {
        return "out of memory";
    }
    for (std::string_view rest(text, static_cast<size_t>(size)); !rest.empty();) {
        const ssize_t written =
            tls_ ? tls_->write(rest.data(), rest.size()) : ::write(context_->fd, rest.data(), rest.size());
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return why_of_errno();
        }
        rest.remove_prefix(static_cast<size_t>(written));
    }
    return "";
}

std::string RedisClient::receive() {
    for (;;) {
        void* raw = nullptr;
        if (redisReaderGetReply(context_->reader, &raw) != REDIS_OK) {
            return context_->reader->errstr;
        }
        if (raw != nullptr) {
            const std::unique_ptr<void, FreeReply> owner(raw);
            const auto* reply = static_cast<const redisReply*>(raw);
            return reply->type == REDIS_REPLY_ERROR ? std::string(reply->str, reply->len) : "";
        }
        char bytes[4096];
        const ssize_t size =
            tls_ ? tls_->read(bytes, sizeof bytes) : ::read(context_->fd, bytes, sizeof bytes);
        if (size < 0 && errno == EINTR) {
            continue;
        }
        if (size <= 0) {
            return size == 0 ? "Redis has closed the connection" : why_of_errno();
        }
        redisReaderFeed(context_->reader, bytes, static_cast<size_t>(size));
    }
}

std::string RedisClient::exchange(const std::vector<Command>& commands) {
    for (const Command& command : commands) {
        if (std::string why = send(command); !why.empty()) {
            return why;
        }
    }
    for (size_t i = 0; i < commands.size(); ++i) {
        if (std::string why = receive(); !why.empty()) {
            return why;
        }
    }
    return "";
}

std::string RedisClient::run(const std::vector<Command>& commands) {
    const bool was_connected = context_ != nullptr;
    const std::string why = attempt(commands);
    return !why.empty() && was_connected ? attempt(commands) : why;
}

std::string RedisClient::attempt(const std::vector<Command>& commands) {
    std::string why = context_ == nullptr ? connect() : "";
    if (why.empty()) {
        why = exchange(commands);
    }
    if (!why.empty()) {
        close();
    }
    return why;
}

}  // namespace llm::engine
