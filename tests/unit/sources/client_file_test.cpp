#include "ngx_module/sources/client_file.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace llm::nginx::sources {
namespace {

std::string error_of(std::string_view text) {
    ClientFile file;
    return parse_client_file(text, file);
}

ClientFile parsed(std::string_view text) {
    ClientFile file;
    EXPECT_EQ(parse_client_file(text, file), "");
    return file;
}

TEST(ClientFile, ReadsUsers) {
    const ClientFile file = parsed(R"({"comment":{"by":["me",{"users":3}]},"users":[
        {"token":"a","name":"Alice","priority":5,"threshold":10,"models":["m1","m2"],"disabled":false},
        {"id":9,"token":"b","priority":1.0,"threshold":null,"weight":2.5,"expires_at":1700000000,
         "unknown":[{"token":"x"},[1,2,null,true]],"models":"m1, m2"}],
        "more":null})");
    EXPECT_TRUE(file.skipped.empty());
    ASSERT_EQ(file.clients.size(), 2u);
    EXPECT_EQ(file.clients[0].token, hash_token("a"));
    EXPECT_EQ(file.clients[0].name, "Alice");
    EXPECT_EQ(file.clients[0].threshold, 10);
    EXPECT_EQ(file.clients[0].models, "m1,m2");
    EXPECT_EQ(file.clients[1].id, "9");
    EXPECT_EQ(file.clients[1].token, hash_token("b"));
    EXPECT_EQ(file.clients[1].priority, 1);
    EXPECT_EQ(file.clients[1].threshold, 0);
    EXPECT_EQ(file.clients[1].weight, 2.5);
    EXPECT_EQ(file.clients[1].expires_at, 1700000000);
    EXPECT_EQ(file.clients[1].models, "m1,m2");
    EXPECT_TRUE(parsed(R"({"users":[]})").clients.empty());
}

TEST(ClientFile, MalformedTextNamesLineAndColumn) {
    EXPECT_TRUE(error_of("").starts_with("line 1, column 1: ")) << error_of("");
    EXPECT_TRUE(error_of("{\"users\":[\n  {\"token\":\"a\",}\n]}").starts_with("line 2, column 16: "))
        << error_of("{\"users\":[\n  {\"token\":\"a\",}\n]}");
    EXPECT_TRUE(error_of("{\"users\":[\n\n\n").starts_with("line 3, column 1: "))
        << error_of("{\"users\":[\n\n\n");
    EXPECT_TRUE(error_of("{\"users\":[]}\n x").starts_with("line 2, column 2: "))
        << error_of("{\"users\":[]}\n x");
    using namespace std::string_literals;
    EXPECT_EQ(error_of("{\"users\":[]}\n\0 x"s), "line 2: a byte 0 after the end");
    EXPECT_EQ(error_of("{\"users\":[]}\0"s), "line 1: a byte 0 after the end");
}

TEST(ClientFile, WrongShapeIsAnError) {
    EXPECT_EQ(error_of("[]"), "line 1, column 1: expected an object with \"users\", found an array");
    EXPECT_EQ(error_of("{}"), "line 1, column 2: there is no \"users\"");
    EXPECT_EQ(error_of(R"({"users":{}})"), "line 1, column 10: \"users\" must be an array, found an object");
    EXPECT_EQ(error_of("{\"users\":\n[1]}").substr(0, 7), "line 2,");
    EXPECT_NE(error_of("{\"users\":[[]]}").find("must be an object, found an array"), std::string::npos);
    EXPECT_NE(error_of(R"({"users":[],"users":[]})").find("is there twice"), std::string::npos);
}

TEST(ClientFile, ErrorsDoNotRepeatWhatWasRead) {
    for (const char* text :
         {"{\"users\":[{\"token\":\"sk-secret\n\"}]}", "{\"users\":[{\"token\":\"sk-secret\\x\"}]}",
          "{\"users\":[{\"token\":\"sk-secret\xff\"}]}"}) {
        const std::string error = error_of(text);
        EXPECT_FALSE(error.empty());
        EXPECT_EQ(error.find("sk-"), std::string::npos) << error;
    }
}

TEST(ClientFile, BadRowsAreSkippedWithTheirLine) {
    const ClientFile file = parsed(
        "{\"users\":[\n"
        "{\"token\":\"a\",\"priority\":1},\n"
        "{\"token\":\"b\"},\n"
        "{\"token\":\"c\",\"priority\":\"5\"},\n"
        "{\"token\":7,\"priority\":5},\n"
        "{\"token\":\"d\",\"token\":\"e\",\"priority\":5},\n"
        "{\"token\":\"f\",\"priority\":5,\"models\":[1]},\n"
        "{\"token\":\"g\",\"priority\":5,\"name\":{\"x\":1}},\n"
        "{\"token\":\"a\",\"priority\":2},\n"
        "{\"token\":\"h\",\"priority\":3}\n"
        "]}");
    ASSERT_EQ(file.clients.size(), 2u);
    EXPECT_EQ(file.clients[0].priority, 1);
    EXPECT_EQ(file.clients[1].token, hash_token("h"));
    const std::vector<std::string> expected = {
        "line 3: priority: missing",
        "line 4: priority: a value of this type is not allowed",
        "line 5: token: a value of this type is not allowed",
        "line 6: token: is there twice",
        "line 7: models: not a list of strings",
        "line 8: name: an object",
        "line 9: this token was there before",
    };
    EXPECT_EQ(file.skipped, expected);
}

TEST(ClientFile, ListsOnlySoManySkippedRows) {
    std::string text = "{\"users\":[{}";
    for (int i = 0; i < 500; ++i) {
        text += ",{}";
    }
    const ClientFile file = parsed(text + "]}");
    ASSERT_EQ(file.skipped.size(), 101u);
    EXPECT_EQ(file.skipped.back(), "and 401 more");
}

TEST(ClientFile, SurvivesDeepNesting) {
    const std::string deep(1'000'000, '[');
    EXPECT_FALSE(error_of("{\"users\":" + deep).empty());
    EXPECT_FALSE(error_of("{\"x\":" + deep).empty());
}

class ClientFileOnDisk : public testing::Test {
  protected:
    void SetUp() override {
        std::string name = (std::filesystem::temp_directory_path() / "client-file-XXXXXX").string();
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        directory_ = name;
    }
    void TearDown() override { std::filesystem::remove_all(directory_); }

    std::string path() const { return directory_ / "tokens.json"; }
    void write(const std::string& text) const { std::ofstream(path()) << text; }

    std::filesystem::path directory_;
};

TEST_F(ClientFileOnDisk, SignatureTellsVersionsApart) {
    EXPECT_EQ(file_signature(path()).size, -1);
    write(R"({"users":[]})");
    const FileSignature first = file_signature(path());
    EXPECT_EQ(first.size, 12);
    EXPECT_EQ(first, file_signature(path()));
    ClientFile file;
    EXPECT_EQ(read_client_file(path(), file), "");
    EXPECT_EQ(file.signature, first);
    std::filesystem::rename(path(), path() + ".old");
    write(R"({"users":[]})");
    EXPECT_NE(file_signature(path()), first);
}

TEST_F(ClientFileOnDisk, ErrorsNameTheFileAndKeepWhatWasThere) {
    write(R"({"users":[{"token":"a","priority":1}]})");
    ClientFile file;
    ASSERT_EQ(read_client_file(path(), file), "");
    const FileSignature good = file.signature;
    write("{\"users\":\n[}");
    const std::string error = read_client_file(path(), file);
    EXPECT_TRUE(error.starts_with(path() + ": line 2, column 2: ")) << error;
    EXPECT_EQ(file.clients.size(), 1u);
    EXPECT_NE(file.signature, good);
    EXPECT_EQ(file.signature, file_signature(path()));  // of what was read and found wrong
    const FileSignature wrong = file.signature;
    EXPECT_NE(read_client_file(path() + ".none", file).find("No such file"), std::string::npos);
    EXPECT_NE(read_client_file(directory_, file).find("not a regular file"), std::string::npos);
    EXPECT_EQ(file.signature, wrong);
}

}  // namespace
}  // namespace llm::nginx::sources
