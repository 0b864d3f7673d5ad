#include "tools/llmctl/arguments.hpp"

#include <gtest/gtest.h>

#include "tools/llmctl/failure.hpp"

namespace llm::ctl {
namespace {

const std::vector<Command>& commands() {
    static const std::vector<Command> all = {
        {"queue", "", 0, 0, "shows", {{"--all", "", "all"}}, {}},
        {"queue cancel", "ID…", 1, 9, "ends", {}, {}},
        {"token add", "[NAME]", 0, 1, "adds", {{"--max-running", "N", "n"}}, {}},
    };
    return all;
}

ParsedLine parse(const std::vector<std::string>& line) {
    return parse_line(line, commands());
}

std::string refusal(const std::vector<std::string>& line) {
    try {
        parse(line);
    } catch (const Failure& failure) {
        EXPECT_EQ(failure.status(), Exit::usage);
        return failure.what();
    }
    return "";
}

TEST(Arguments, OptionsStandAnywhere) {
    const std::vector<std::vector<std::string>> lines = {
        {"--json", "--db", "u", "token", "add", "bob", "--max-running", "3"},
        {"token", "--db=u", "add", "--max_running=3", "--json", "bob"},
        {"--max-running", "3", "token", "add", "--json", "--db", "u", "bob"},
        {"token", "--max_running", "3", "add", "--json", "--db", "u", "bob"},
        {"token", "add", "--max-running", "3", "--db", "u", "--json", "--", "bob"}};
    for (const auto& line : lines) {
        const ParsedLine parsed = parse(line);
        ASSERT_NE(parsed.command, nullptr);
        EXPECT_EQ(parsed.command->words, "token add");
        EXPECT_EQ(parsed.arguments.operands(), std::vector<std::string>{"bob"});
        EXPECT_EQ(parsed.arguments.value("--db"), "u");
        EXPECT_EQ(parsed.arguments.integer("--max-running", 0, 9, 0), 3);
        EXPECT_TRUE(parsed.arguments.json());
    }
}

TEST(Arguments, TheLongestCommandWins) {
    EXPECT_EQ(parse({"queue"}).command->words, "queue");
    EXPECT_EQ(parse({"queue", "--all"}).command->words, "queue");
    EXPECT_EQ(parse({"queue", "cancel", "1-2", "3-4"}).command->words, "queue cancel");
    EXPECT_EQ(parse({"queue", "cancel", "1-2", "3-4"}).arguments.operands().size(), 2u);
    EXPECT_EQ(parse({"token", "add", "--", "--odd"}).arguments.operands(), std::vector<std::string>{"--odd"});
    EXPECT_NE(refusal({"queue", "--", "cancel"}).find("`queue` takes"), std::string::npos);
}

TEST(Arguments, HelpAndVersion) {
    EXPECT_TRUE(parse({"--help"}).help);
    EXPECT_TRUE(parse({"help"}).help);
    EXPECT_TRUE(parse({"token", "add", "-h"}).help);
    EXPECT_TRUE(parse({"queue", "cancel", "--help"}).help);
    EXPECT_TRUE(parse({"queue", "--version"}).version);
    EXPECT_NE(help_of(commands()).find("queue cancel ID…"), std::string::npos);
    EXPECT_NE(help_of(commands()[2]).find("--max-running N"), std::string::npos);
}

TEST(Arguments, SayWhatIsWrong) {
    EXPECT_NE(refusal({}).find("--help"), std::string::npos);
    EXPECT_NE(refusal({"tokens"}).find("token add"), std::string::npos);
    EXPECT_NE(refusal({"token"}).find("token add"), std::string::npos);
    EXPECT_NE(refusal({"token", "remove"}).find("token add"), std::string::npos);
    EXPECT_NE(refusal({"queue", "--some"}).find("--all"), std::string::npos);
    EXPECT_NE(refusal({"queue", "--all=1"}).find("no value"), std::string::npos);
    EXPECT_NE(refusal({"queue", "--db"}).find("needs a value"), std::string::npos);
    EXPECT_NE(refusal({"queue", "--db", "a", "--db", "b"}).find("twice"), std::string::npos);
    EXPECT_NE(refusal({"queue", "x"}).find("no operand"), std::string::npos);
    EXPECT_NE(refusal({"queue", "cancel"}).find("ID"), std::string::npos);
}

TEST(Arguments, Integers) {
    EXPECT_EQ(parse_integer("n", "-5", -9, 9), -5);
    for (const char* bad : {"", "x", "5x", "10", " 5", "5.0", "99999999999999999999"}) {
        EXPECT_THROW(parse_integer("n", bad, -9, 9), Failure) << bad;
    }
}

}  // namespace
}  // namespace llm::ctl
