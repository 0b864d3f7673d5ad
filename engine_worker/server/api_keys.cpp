#include "engine_worker/server/api_keys.hpp"

#include <strings.h>

#include <algorithm>
#include <fstream>

namespace llm::engine {
namespace {

constexpr std::string_view kScheme = "Bearer ";

}  // namespace

std::string ApiKeys::load(const std::string& path) {
    std::ifstream file(path);
    if (!file) {
        return "cannot read " + path;
    }
    std::vector<TokenHash> hashes;
    std::string line;
    for (int number = 1; std::getline(file, line); ++number) {
        line.erase(line.find_last_not_of(" \t\r") + 1);
        if (line.empty() || line.front() == '#') {
            continue;
        }
        if (!std::all_of(line.begin(), line.end(), [](char c) { return c > ' ' && c < '\x7f'; })) {
            return path + ", line " + std::to_string(number) + ": a key is printable ASCII without blanks";
        }
        hashes.push_back(hash_token(line));
    }
    if (hashes.empty()) {
        return path + " holds no key";
    }
    hashes_ = std::move(hashes);
    return "";
}

bool ApiKeys::admits(std::string_view authorization) const {
    if (hashes_.empty()) {
        return true;
    }
    // Schemes know no case (RFC 9110 section 11.1).
    if (authorization.size() < kScheme.size() ||
        strncasecmp(authorization.data(), kScheme.data(), kScheme.size()) != 0) {
        return false;
    }
    authorization.remove_prefix(
        std::min(authorization.find_first_not_of(' ', kScheme.size()), authorization.size()));
    const TokenHash hash = hash_token(authorization);
    bool found = false;
    for (const TokenHash& one : hashes_) {
        found = equal_constant_time(one, hash) || found;
    }
    return found;
}

}  // namespace llm::engine
