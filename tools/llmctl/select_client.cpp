#include "tools/llmctl/select_client.hpp"

#include <algorithm>

#include "shared/hex.hpp"
#include "shared/token_hash.hpp"
#include "tools/llmctl/failure.hpp"
#include "tools/llmctl/text.hpp"

namespace llm::ctl {
namespace {

constexpr size_t kMinDigits = 8;

bool is_prefix_of_hash(const std::string& text, const std::string& hash) {
    if (text.size() < kMinDigits || text.size() > hash.size()) {
        return false;
    }
    return std::equal(text.begin(), text.end(), hash.begin(),
                      [](char a, char b) { return hex_value(a) >= 0 && hex_value(a) == hex_value(b); });
}

bool matches(const StoredClient& client, std::string_view kind, const std::string& who,
             const std::string& who_hash) {
    const auto is = [&](std::string_view name, Column column) {
        return (kind.empty() || kind == name) && client.values[column] && *client.values[column] == who;
    };
    if (is("id", Column::id) || is("name", Column::name) || is("email", Column::email)) {
        return true;
    }
    const std::string hash = client.hash();
    if (hash.empty()) {
        return false;
    }
    return ((kind.empty() || kind == "sha256") && is_prefix_of_hash(who, hash)) ||
           (kind.empty() && hash == who_hash);
}

}  // namespace

std::string fingerprint(const StoredClient& client) {
    return client.hash().substr(0, 12);
}

std::string label(const StoredClient& client) {
    std::string out;
    if (const Value& id = client.values[Column::id]) {
        out = visible(*id) + " ";
    }
    const Value& name =
        client.values[Column::name] ? client.values[Column::name] : client.values[Column::email];
    out += '"' + visible(name.value_or("")) + '"';
    const std::string print = fingerprint(client);
    return print.empty() ? out : out + " (" + print + ")";
}

const StoredClient& select_client(const std::vector<StoredClient>& clients, const std::string& who) {
    std::string_view kind;
    std::string text = who;
    for (const std::string_view one : {"id", "name", "email", "sha256"}) {
        if (who.starts_with(std::string(one) + ":")) {
            kind = one;
            text = who.substr(one.size() + 1);
        }
    }
    const std::string hash = to_hex(hash_token(text));
    const StoredClient* found = nullptr;
    std::string list;
    size_t count = 0;
    for (const StoredClient& client : clients) {
        if (matches(client, kind, text, hash)) {
            found = &client;
            list += (++count > 1 ? ", " : "") + label(client);
        }
    }
    if (found == nullptr) {
        throw Failure(Exit::not_found, "no client matches; " + std::string(kWhoHelp));
    }
    if (count > 1) {
        throw Failure(Exit::refused, std::to_string(count) + " clients match: " + list +
                                         "; say which, with id:X or sha256:X");
    }
    return *found;
}

}  // namespace llm::ctl
