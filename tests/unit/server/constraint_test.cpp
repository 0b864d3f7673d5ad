#include "engine_worker/server/constraint.hpp"

#include <gtest/gtest.h>

#include <string>

#include "engine_worker/backend/sim/byte_tokenizer.hpp"
#include "engine_worker/server/api_error.hpp"
#include "tests/unit/grammar/grammar_support.hpp"

namespace llm::engine {
namespace {

using testing::read_with;
using testing::Reading;

constexpr const char* kLyon = R"({"city": "Lyon"})";

Constraint with_tools(ToolFormat format) {
    Constraint out;
    out.calls = Constraint::Calls::required;
    out.format = format;
    out.tools = {{"weather",
                  OrderedJson::parse(
                      R"({"type":"object","properties":{"city":{"type":"string"}},"required":["city"]})"),
                  "tools[0]"},
                 {"now", OrderedJson(), "tools[1]"}};
    return out;
}

std::string tagged(const std::string& name, const std::string& arguments) {
    return "<tool_call>\n{\"name\": \"" + name + "\", \"arguments\": " + arguments + "}\n</tool_call>";
}

class ConstraintTest : public ::testing::Test {
  protected:
    Reading read(const Constraint& constraint, const std::string& text) {
        return read_with(compile(constraint, cache_)->grammar(), text);
    }

    std::unique_ptr<Tokenizer> tokenizer_ = make_byte_tokenizer();
    GrammarCache cache_{*tokenizer_, tokenizer_->vocab_size()};
};

TEST_F(ConstraintTest, RequiredCallsInTags) {
    const Constraint calls = with_tools(ToolFormat::tags);
    EXPECT_EQ(read(calls, tagged("weather", kLyon)), Reading::whole);
    EXPECT_EQ(read(calls, tagged("now", "{}")), Reading::whole);
    EXPECT_EQ(read(calls, tagged("weather", kLyon) + "\n" + tagged("now", "{}")), Reading::whole);
    EXPECT_EQ(read(calls, "<tool_call>"), Reading::start);
    EXPECT_EQ(read(calls, "It rains."), Reading::no);
    EXPECT_EQ(read(calls, tagged("storm", "{}")), Reading::no);
    EXPECT_EQ(read(calls, tagged("weather", "{}")), Reading::no) << "the city is required";
    EXPECT_EQ(read(calls, tagged("weather", kLyon) + "."), Reading::no);
}

TEST_F(ConstraintTest, OneCallWhereParallelOnesAreNotWanted) {
    Constraint calls = with_tools(ToolFormat::tags);
    calls.several_calls = false;
    EXPECT_EQ(read(calls, tagged("weather", kLyon)), Reading::whole);
    EXPECT_EQ(read(calls, tagged("weather", kLyon) + "\n" + tagged("now", "{}")), Reading::no);
}

TEST_F(ConstraintTest, RequiredCallAsBareObject) {
    const Constraint calls = with_tools(ToolFormat::json);
    EXPECT_EQ(read(calls, R"({"name": "weather", "parameters": {"city": "Lyon"}})"), Reading::whole);
    EXPECT_EQ(read(calls, R"({"name": "weather", "arguments": {"city": "Lyon"}})"), Reading::no);
    EXPECT_EQ(read(calls, tagged("weather", kLyon)), Reading::no);
}

TEST_F(ConstraintTest, AllowedCallsStandBesideTheDemandedResponse) {
    Constraint either = with_tools(ToolFormat::tags);
    either.calls = Constraint::Calls::allowed;
    either.response = Constraint::Response::object;
    EXPECT_EQ(read(either, R"({"answer": 42})"), Reading::whole);
    EXPECT_EQ(read(either, tagged("weather", kLyon)), Reading::whole);
    EXPECT_EQ(read(either, "42"), Reading::no);
}

TEST_F(ConstraintTest, ThoughtsThatThePromptHasOpened) {
    Constraint object;
    object.response = Constraint::Response::object;
    object.thinking = Constraint::Thinking::open;
    EXPECT_EQ(read(object, "hm < </thin </think>\n\n{\"a\": 1}"), Reading::whole);
    EXPECT_EQ(read(object, "</think>{}"), Reading::whole);
    EXPECT_EQ(read(object, "{\"a\": 1}"), Reading::start) << "still thinking";
    EXPECT_EQ(read(object, "hm</think>\n\nwell"), Reading::no);
}

TEST_F(ConstraintTest, ThoughtsThatTheModelMayOpen) {
    Constraint calls = with_tools(ToolFormat::tags);
    calls.thinking = Constraint::Thinking::may;
    EXPECT_EQ(read(calls, "<think>which one?</think>\n\n" + tagged("now", "{}")), Reading::whole);
    EXPECT_EQ(read(calls, tagged("now", "{}")), Reading::whole);
    EXPECT_EQ(read(calls, "<think>" + tagged("now", "{}")), Reading::start);
    EXPECT_EQ(read(calls, "which one?"), Reading::no);
}

TEST_F(ConstraintTest, WhatCannotBeEnforcedIsNamed) {
    Constraint calls = with_tools(ToolFormat::tags);
    calls.tools[0].parameters = OrderedJson::parse(R"({"type":"object","not":{}})");
    try {
        compile(calls, cache_);
        FAIL() << "'not' was taken";
    } catch (const ApiError& error) {
        EXPECT_EQ(error.status, 400);
        EXPECT_NE(error.message.find("'not'"), std::string::npos) << error.message;
        EXPECT_NE(error.param.find("tools[0]"), std::string::npos) << error.param;
    }
}

TEST_F(ConstraintTest, GrammarsAreKeptUnlessTheirSchemaIsLong) {
    Constraint constraint;
    constraint.response = Constraint::Response::schema;
    constraint.schema = {{"type", "null"}};
    EXPECT_EQ(compile(constraint, cache_), compile(constraint, cache_));
    constraint.schema["description"] = std::string(2U << 20, 'x');
    EXPECT_NE(compile(constraint, cache_), compile(constraint, cache_));
}

TEST_F(ConstraintTest, ASchemaThatBeginsInTooManyWaysIsRefused) {
    Constraint constraint;
    constraint.response = Constraint::Response::schema;
    OrderedJson branches = OrderedJson::array(), defs = OrderedJson::object();
    for (int i = 0; i < 130; ++i) {
        const std::string path = "#/$defs/" + std::to_string(i);
        branches.push_back({{"$ref", path}});
        OrderedJson leaves = OrderedJson::array(), list = OrderedJson::array();
        for (int j = 0; j < 130; ++j) {
            leaves.push_back({{"$ref", path + "/$defs/" + std::to_string(j)}});
            list.push_back({{"type", "null"}, {"description", path + "/" + std::to_string(j)}});
        }
        defs[std::to_string(i)] = {{"anyOf", leaves}, {"$defs", list}};
    }
    constraint.schema = {{"anyOf", branches}, {"$defs", defs}};
    try {
        compile(constraint, cache_);
        FAIL() << "was taken";
    } catch (const ApiError& error) {
        EXPECT_EQ(error.status, 400);
        EXPECT_NE(error.message.find("too many ways"), std::string::npos) << error.message;
        EXPECT_EQ(error.param, "response_format");
    }
}

}  // namespace
}  // namespace llm::engine
