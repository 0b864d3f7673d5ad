#include "tools/llmctl/secret.hpp"

#include <sys/random.h>

#include <cerrno>
#include <cstring>
#include <iostream>
#include <string_view>

#include "ngx_module/core/text/bearer.hpp"
#include "tools/llmctl/failure.hpp"

namespace llm::ctl {

namespace {

constexpr const char* kCharacters = " ASCII characters without blanks";

}  // namespace

std::string make_secret(const std::string& prefix) {
    constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    constexpr size_t kLength = 43;  // 62^43 > 2^256
    constexpr size_t kMaxPrefix = 64;
    if (prefix.size() > kMaxPrefix || (!prefix.empty() && !core::is_bearer_token(prefix))) {
        throw Failure(Exit::usage, "--prefix: expected at most " + std::to_string(kMaxPrefix) +
                                       kCharacters);
    }
    std::string out = prefix;
    while (out.size() < prefix.size() + kLength) {
        unsigned char bytes[64];
        const ssize_t got = getrandom(bytes, sizeof bytes, 0);
        if (got < 0 && errno != EINTR) {
            throw Failure(Exit::refused, std::string("getrandom() failed: ") + std::strerror(errno));
        }
        for (ssize_t i = 0; i < got && out.size() < prefix.size() + kLength; ++i) {
            // 248 = 4 × 62: larger ones would make some letters likelier
            if (bytes[i] < 248) {
                out += kAlphabet[bytes[i] % 62];
            }
        }
    }
    return out;
}

std::string read_secret() {
    std::string line;
    std::getline(std::cin, line);
    while (!line.empty() && (line.back() == '\r' || line.back() == '\n')) {
        line.pop_back();
    }
    if (!core::is_bearer_token(line)) {
        throw Failure(Exit::usage, "--stdin: expected one line of 1 to " +
                                       std::to_string(core::kMaxBearerToken) + kCharacters);
    }
    return line;
}

}  // namespace llm::ctl
