#include "engine_worker/server/redis_client.hpp"

#include <hiredis/hiredis.h>
#include <sys/time.h>

#include <cerrno>
#include <memory>

namespace llm::engine {
namespace {

constexpr timeval kTimeout = {1, 0};

struct FreeReply {
    void operator()(void* reply) const { freeReplyObject(reply); }
};

// hiredis leaves errno's text of a timeout: "Resource temporarily unavailable".
std::string why_of(const redisContext& context) {
    const bool late = context.err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK);
    return late ? "no answer within " + std::to_string(kTimeout.tv_sec) + " s" : context.errstr;
}

}  // namespace

void RedisClient::close() {
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

std::string RedisClient::exchange(const std::vector<Command>& commands) {
    for (const Command& command : commands) {
        std::vector<const char*> words;
        std::vector<size_t> sizes;
        for (const std::string& word : command) {
            words.push_back(word.data());
            sizes.push_back(word.size());
        }
        if (redisAppendCommandArgv(context_, static_cast<int>(words.size()), words.data(), sizes.data()) !=
            REDIS_OK) {
            return context_->errstr;
        }
    }
    for (size_t i = 0; i < commands.size(); ++i) {
        void* raw = nullptr;
        if (redisGetReply(context_, &raw) != REDIS_OK) {
            return why_of(*context_);
        }
        const std::unique_ptr<void, FreeReply> owner(raw);
        const auto* reply = static_cast<const redisReply*>(raw);
        if (reply->type == REDIS_REPLY_ERROR) {
            return std::string(reply->str, reply->len);
        }
    }
    return "";
}

std::string RedisClient::run(const std::vector<Command>& commands) {
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
