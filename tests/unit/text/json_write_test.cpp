#include "ngx_module/core/text/json_write.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>

#include "shared/json.hpp"

namespace llm::core {
namespace {

using namespace std::string_view_literals;

std::string escaped(std::string_view text) {
    const size_t size = JsonWriter::escaped_size(text);
    const std::unique_ptr<char[]> buffer(new char[size]);
    JsonWriter writer(buffer.get(), size);
    EXPECT_TRUE(writer.string(text).ok());
    EXPECT_EQ(writer.size(), size);
    // One byte less does not do.
    JsonWriter narrow(buffer.get(), size - 1);
    EXPECT_FALSE(narrow.string(text).ok());
    EXPECT_EQ(narrow.size(), 0u);
    return std::string(writer.text().data(), writer.text().size());
}

TEST(JsonWriter, EscapesWhatMustBe) {
    EXPECT_EQ(escaped(""), R"("")");
    EXPECT_EQ(escaped("plain"), R"("plain")");
    EXPECT_EQ(escaped("a\"b\\c/\n\r\t\b\x01\x1f"), R"("a\"b\\c/\n\r\t\u0008\u0001\u001f")");
    EXPECT_EQ(escaped("\0"sv), R"("\u0000")");
    EXPECT_EQ(escaped("\u00e9\u20ac\U0001f600"), "\"\u00e9\u20ac\U0001f600\"");
}

TEST(JsonWriter, ReplacesInvalidUtf8) {
    const std::string replacement = "\ufffd";
    EXPECT_EQ(escaped("a\x80z"), "\"a" + replacement + "z\"");
    EXPECT_EQ(escaped("\xc0\x80"), "\"" + replacement + replacement + "\"");
    EXPECT_EQ(escaped("\xe2\x82"), "\"" + replacement + "\"");
    EXPECT_EQ(escaped("\xe2\x82z"), "\"" + replacement + "z\"");
    EXPECT_EQ(escaped("\xed\xa0\x80"), "\"" + replacement + replacement + replacement + "\"");
    EXPECT_EQ(escaped("\xf0\x9f\x98"), "\"" + replacement + "\"");
    EXPECT_EQ(escaped("\xff\xfe"), "\"" + replacement + replacement + "\"");
}

TEST(JsonWriter, AlwaysWritesValidJson) {
    std::mt19937 random(3);
    for (int round = 0; round < 3000; ++round) {
        std::string text(random() % 20, '\0');
        for (char& c : text) {
            c = static_cast<char>(random() % 3 ? 0x80 + random() % 128 : random() % 128);
        }
        const auto parsed = nlohmann::json::parse(escaped(text), nullptr, false);
        ASSERT_TRUE(parsed.is_string());
        // The same replacement as another implementation's.
        const auto other = nlohmann::json::parse(
            nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
        EXPECT_LE(parsed.get<std::string>().size(), 3 * text.size());
        bool valid = true;
        try {
            static_cast<void>(nlohmann::json(text).dump());
        } catch (const nlohmann::json::exception&) {
            valid = false;
        }
        if (valid) {
            EXPECT_EQ(parsed.get<std::string>(), text);
        } else {
            EXPECT_NE(parsed.get<std::string>().find("\ufffd"), std::string::npos);
            EXPECT_NE(other.get<std::string>().find("\ufffd"), std::string::npos);
        }
    }
}

TEST(JsonWriter, BuildsDocuments) {
    char buffer[128];
    JsonWriter writer(buffer, sizeof(buffer));
    writer.raw("{\"error\":{\"message\":")
        .string("no \"model\"")
        .raw(",\"code\":")
        .number(-9223372036854775807 - 1)
        .raw("}}");
    EXPECT_TRUE(writer.ok());
    EXPECT_EQ(writer.text(), R"({"error":{"message":"no \"model\"","code":-9223372036854775808}})");
}

TEST(JsonWriter, LeavesOutWhatDoesNotFit) {
    char buffer[4];
    JsonWriter writer(buffer, sizeof(buffer));
    writer.raw("abc");
    EXPECT_TRUE(writer.ok());
    writer.raw("de");
    EXPECT_FALSE(writer.ok());
    EXPECT_EQ(writer.text(), "abc");
    writer.raw("f");  // would fit, but the document is broken already
    EXPECT_EQ(writer.text(), "abc");
    EXPECT_FALSE(JsonWriter(buffer, 4).number(12345).ok());
    EXPECT_TRUE(JsonWriter(buffer, 0).raw("").ok());
}

}  // namespace
}  // namespace llm::core
