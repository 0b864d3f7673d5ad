#include "tools/llmctl/select_client.hpp"

#include <gtest/gtest.h>

#include "shared/token_hash.hpp"
#include "tools/llmctl/failure.hpp"
#include "tools/llmctl/secret.hpp"

namespace llm::ctl {
namespace {

StoredClient client(const char* id, const char* name, const char* token) {
    StoredClient out;
    out.values[Column::id] = id;
    out.values[Column::name] = name;
    out.values[Column::token] = token;
    return out;
}

TEST(SelectClient, FindsTheOneThatIsMeant) {
    const std::vector<StoredClient> clients = {client("1", "a", "t1"), client("2", "b", "t2"),
                                               client("3", "1", "t3")};
    const std::string hash = to_hex(hash_token("t2"));
    for (const std::string& who :
         {std::string("b"), std::string("2"), std::string("name:b"), std::string("t2"), hash,
          hash.substr(0, 8), "sha256:" + hash.substr(0, 20)}) {
        EXPECT_EQ(*select_client(clients, who).values[Column::id], "2") << who;
    }
    EXPECT_EQ(*select_client(clients, "id:1").values[Column::name], "a");
    EXPECT_EQ(*select_client(clients, "name:1").values[Column::id], "3");
}

TEST(SelectClient, RefusesToGuess) {
    const std::vector<StoredClient> clients = {client("1", "a", "t1"), client("3", "1", "t3")};
    const auto status = [&](const std::string& who) {
        try {
            select_client(clients, who);
        } catch (const Failure& failure) {
            EXPECT_EQ(std::string(failure.what()).find("t1"), std::string::npos);
            return failure.status();
        }
        return Exit::ok;
    };
    EXPECT_EQ(status("1"), Exit::refused);
    EXPECT_EQ(status("t1x"), Exit::not_found);
    EXPECT_EQ(status(""), Exit::not_found);
    EXPECT_EQ(status(to_hex(hash_token("t1")).substr(0, 7)), Exit::not_found);
}

TEST(Secret, HasItsPrefixAndAllItsLetters) {
    const std::string one = make_secret("sk-");
    EXPECT_EQ(one.size(), 46u);
    EXPECT_TRUE(one.starts_with("sk-"));
    EXPECT_EQ(one.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-"),
              std::string::npos);
    EXPECT_NE(one, make_secret("sk-"));
}

}  // namespace
}  // namespace llm::ctl
