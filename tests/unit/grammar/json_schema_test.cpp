#include "engine_worker/grammar/json_schema.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/unit/grammar/grammar_support.hpp"

namespace llm::engine {
namespace {

using testing::read_with;
using testing::Reading;
using testing::schema_grammar;

struct Case {
    const char* schema;
    std::vector<const char*> valid;
    std::vector<const char*> invalid;
};

void check(const Case& one) {
    const Grammar grammar = schema_grammar(one.schema);
    for (const char* text : one.valid) {
        EXPECT_EQ(read_with(grammar, text), Reading::whole) << one.schema << " should take " << text;
    }
    for (const char* text : one.invalid) {
        EXPECT_NE(read_with(grammar, text), Reading::whole) << one.schema << " should not take " << text;
    }
}

TEST(JsonSchema, Scalars) {
    check({R"({"type":"string"})",
           {R"("")", R"("a\"\\\u00e9\ud83d\ude80é")"},
           {"a", R"("\ud83d")", "\"\n\"", "1"}});
    check({R"({"type":"integer"})",
           {"0", "-7", "123456789012345678"},
           {"01", "-0", "1.0", "+1", "1234567890123456789"}});
    check({R"({"type":"number"})", {"0", "-0.5", "1e10", "2.5E-3"}, {".5", "1.", "00", "1e", "--1"}});
    check({R"({"type":["boolean","null"]})", {"true", "false", "null"}, {"nul", "True", "0"}});
    check({R"({"type":"string","nullable":true})", {"null", R"("x")"}, {"1"}});
    check({R"({"enum":["a",1,null,{"k":[true]}]})",
           {R"("a")", "1", "null", R"({"k": [true]})"},
           {"2", R"("b")"}});
    check({R"({"const":"é\n"})", {R"("é\n")"}, {R"("e")"}});
    check({R"({"type":"integer","enum":[1,"x",2.5,4],"maximum":3})", {"1"}, {"\"x\"", "2.5", "4"}});
    check({"true", {"1", "[{}]", R"({"a": [1, "b"]})"}, {"", "[1 2]"}});
}

TEST(JsonSchema, Strings) {
    check({R"({"type":"string","minLength":2,"maxLength":3})",
           {R"("ab")", R"("éü東")", R"("\n\u0041")", R"("\ud83d\ude80a")"},
           {R"("a")", R"("abcd")", R"("\n")"}});
    check({R"({"type":"string","minLength":2})", {R"("ab")", R"("abcdefghijklm")"}, {R"("a")"}});
    check({R"({"type":"string","pattern":"^[a-c]+$","maxLength":2})",
           {R"("ab")"},
           {R"("abc")", R"("")", R"("d")"}});
    check({R"({"format":"date-time"})",
           {R"("2024-02-28T23:59:59.5+01:00")"},
           {R"("2024-02-30T00:00:00Z")", R"("x")"}});
    check({R"({"format":"date"})",
           {R"("2024-12-31")", R"("2024-02-29")", R"("2000-02-29")", R"("1996-02-29")"},
           {R"("2024-13-01")", R"("2024-04-31")", R"("2023-02-29")", R"("1900-02-29")", R"("2024-02-30")"}});
    check({R"({"format":"uuid"})", {R"("123e4567-e89b-12d3-a456-426614174000")"}, {R"("123e4567")"}});
    check({R"({"format":"ipv4"})", {R"("255.0.10.1")"}, {R"("256.0.0.1")", R"("1.2.3")"}});
    check({R"({"format":"ipv6"})",
           {R"("::")", R"("fe80::1")", R"("1:2:3:4:5:6:7:8")", R"("2001:db8::8:800:200c:417a")",
            R"("1::3:4:5:6:7:8")", R"("::2:3:4:5:6:7:8")", R"("1:2:3:4:5:6:7::")", R"("::ffff:192.0.2.33")",
            R"("64:ff9b::192.0.2.33")", R"("0:0:0:0:0:0:13.1.68.3")"},
           {R"("1:2")", R"("g::")", R"("1::2::3")", R"("1:2:3:4:5:6:7:8:9")", R"("1::3:4:5:6:7:8:9")",
            R"(":1")", R"("1:2:3:4:5:6:7:1.2.3.4")"}});
    check({R"({"format":"email"})",
           {R"("a.b@c-d.org")", R"("first.middle.last@mail.example.photography")"},
           {R"("a@b")", R"("@x.org")", R"("a..b@x.org")", R"(".a@x.org")"}});
    check({R"({"format":"uri"})", {R"("https://a.org/b?c=%20#d")"}, {R"("a b")", R"("/x")"}});
    check({R"({"format":"duration"})",
           {R"("P1DT2H3M4S")", R"("P2W")", R"("PT5M")", R"("PT1H")", R"("PT90S")", R"("P1Y")", R"("P6M")",
            R"("P1Y2M3DT4H5M6S")", R"("P1MT1H")"},
           {R"("P")", R"("PT")", R"("P1")", R"("P1DT")", R"("PT1H2S")", R"("P1W2D")", R"("P1D2M")"}});
    check({R"({"format":"hostname"})",
           {R"("www.a-b.org")", R"("localhost")", R"("ec2-203-0-113-25.us-east-1.compute.example.com")"},
           {R"("-a")", R"("a..b")", R"("a-.b")"}});
    const std::string label(63, 'a'), most = label + "." + label + "." + label;  // 253 with what fits no more
    const Grammar hostname = schema_grammar(R"({"format":"hostname"})");
    EXPECT_EQ(read_with(hostname, "\"" + most + "\""), Reading::whole);
    EXPECT_EQ(read_with(hostname, "\"" + most + "." + label + "\""), Reading::no);
    check({R"({"format":"time"})", {R"("12:00:00Z")"}, {R"("24:00:00Z")"}});
}

// What zod 4 and OpenAPI generators write: a format beside the pattern that says it, formats that no standard
// knows.
TEST(JsonSchema, FormatsThatAreRemarks) {
    check({R"j({"type":"string","format":"uuid","pattern":"^([0-9a-f]{2}-4[0-9a-f])$"})j",
           {R"("a0-4f")"},
           {R"("a0-5f")"}});
    check({R"j({"type":"string","format":"email",
              "pattern":"^(?!\\.)(?!.*\\.\\.)([A-Za-z0-9_'+\\-\\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\\-]*\\.)+[A-Za-z]{2,}$"})j",
           {R"("a.b@c-d.org")"},
           {R"("a..b@c.org")", R"("a@b")"}});
    check({R"({"type":"string","format":"password","minLength":2})", {R"("ab")"}, {R"("a")", "1"}});
    check({R"({"type":"string","format":"jwt"})", {R"("any")"}, {"1"}});
    check({R"({"type":"integer","format":"int32"})", {"7"}, {"\"7\""}});
    check({R"({"type":"string","format":"enum","enum":["A","B"]})", {R"("A")"}, {R"("C")"}});
    check({R"({"allOf":[{"type":"string","format":"a"},{"format":"b","maxLength":1}]})",
           {R"("x")"},
           {R"("xx")"}});
}

TEST(JsonSchema, NamesOfProperties) {
    check({R"({"type":"object","propertyNames":{"type":"string"},"additionalProperties":{"type":"number"}})",
           {"{}", R"({"x":1})"},
           {R"({"x":"1"})"}});
    check({R"({"propertyNames":{"type":"string","enum":["a","b"]},"additionalProperties":{"type":"number"}})",
           {"{}", R"({"a":1})", R"({"b":1})", R"({"a":1,"b":2})"},
           {R"({"c":1})", R"({"a":"x"})", R"({"a":1,"a":2})"}});
    check(
        {R"({"propertyNames":{"enum":["a","b"]},"additionalProperties":{"type":"number"},"required":["b"]})",
         {R"({"b":1})", R"({"b":1,"a":2})"},
         {"{}", R"({"a":1})"}});
    check(
        {R"j({"propertyNames":{"$ref":"#/$defs/k"},"properties":{"a":{"type":"null"},"z":{}},"$defs":{"k":{"anyOf":[{"const":"a"},{"const":"b"}]}}})j",
         {"{}", R"({"a":null})"},
         {R"({"a":1})", R"({"z":1})", R"({"b":1})"}});
    check({R"({"propertyNames":{"enum":[1]}})", {"{}"}, {R"({"a":1})"}});
    check({R"({"propertyNames":false})", {"{}"}, {R"({"a":1})"}});
    check({R"({"propertyNames":true,"maxProperties":1})", {R"({"a":1})"}, {R"({"a":1,"b":1})"}});
}

TEST(JsonSchema, Objects) {
    check(
        {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"},"c":{"type":"integer"}},
               "required":["b"]})",
         {R"({"b":1})", R"({"a": 1, "b": 2, "c": 3})", "{\n  \"b\": 1,\n  \"c\": 2\n}", R"({"b":1,"c":2})"},
         {"{}", R"({"a":1})", R"({"b":1,"a":2})", R"({"b":1,})", R"({"b":1,"d":2})", R"({,"b":1})",
          R"({"b":1 ,"c":1})"}});
    check({R"({"properties":{"a":{}},"additionalProperties":{"type":"null"}})",
           {"{}", R"({"a":[1]})", R"({"x":null,"ab":null,"":null})", R"({"a":1,"y":null})"},
           {R"({"x":1})", R"({"x":null,"a":1})", R"({"\u0061":null})"}});
    check({R"({"type":"object"})", {"{}", R"({"x":{"y":[]}})"}, {"[]"}});
    check({R"({"type":"object","properties":{}})", {"{}"}, {R"({"a":1})"}});
    check({R"({"type":"object","additionalProperties":false})", {"{}"}, {R"({"a":1})"}});
    check({R"({"type":"object","required":["x"]})", {R"({"x":1})"}, {"{}"}});
    check({R"({"additionalProperties":{"type":"integer"},"minProperties":1,"maxProperties":2})",
           {R"({"x":1})", R"({"x":1,"y":2})"},
           {"{}", R"({"x":1,"y":2,"z":3})", R"({"x":null})"}});
    check({R"({"type":"object","properties":{},"minProperties":1})", {R"({"x":1})"}, {"{}"}});
    check({R"({"type":["object","null"],"additionalProperties":false,"minProperties":1})", {"null"}, {"{}"}});
}

TEST(JsonSchema, Arrays) {
    check({R"({"type":"array","items":{"type":"integer"}})",
           {"[]", "[1]", "[1, 2,3]"},
           {"[1,]", "[\"a\"]", "[,1]"}});
    check({R"({"items":{"type":"integer"},"minItems":2,"maxItems":3})",
           {"[1,2]", "[1,2,3]"},
           {"[]", "[1]", "[1,2,3,4]"}});
    check({R"({"items":{"type":"integer"},"maxItems":0})", {"[]"}, {"[1]"}});
    check({R"({"prefixItems":[{"type":"integer"},{"type":"string"}],"minItems":1})",
           {"[1]", R"([1,"a"])"},
           {"[]", R"(["a"])", R"([1,"a",2])"}});
    check({R"({"prefixItems":[{"type":"integer"}],"items":{"type":"null"},"maxItems":3})",
           {"[]", "[1]", "[1,null,null]"},
           {"[null]", "[1,null,null,null]"}});
    check({R"({"items":[{"type":"integer"}],"additionalItems":{"type":"null"}})", {"[1,null]"}, {"[null]"}});
    check({R"({"type":"array","minItems":2})", {"[1,{}]"}, {"[1]"}});
}

TEST(JsonSchema, Numbers) {
    for (const auto& [low, high] : std::vector<std::pair<int, int>>{
             {0, 0}, {3, 17}, {-5, 5}, {-120, -7}, {99, 1001}, {-1, 0}, {10, 10}, {0, 250}, {-999, 1000}}) {
        const Grammar grammar = schema_grammar(R"({"type":"integer","minimum":)" + std::to_string(low) +
                                               R"(,"maximum":)" + std::to_string(high) + "}");
        for (int value = -1200; value <= 1200; ++value) {
            EXPECT_EQ(read_with(grammar, std::to_string(value)) == Reading::whole,
                      low <= value && value <= high)
                << value << " in " << low << ".." << high;
        }
    }
    check({R"({"type":"integer","exclusiveMinimum":1,"exclusiveMaximum":3})", {"2"}, {"1", "3"}});
    check({R"({"type":"integer","minimum":1.5})", {"2", "100000"}, {"1", "-3"}});
    check({R"({"type":"number","minimum":0,"maximum":1})",
           {"0", "1", "0.5", "1.0", "0.999"},
           {"1.01", "-0.1", "2"}});
    check({R"({"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1})",
           {"0.01", "0.9"},
           {"0", "0.0", "1", "1.0"}});
    check({R"({"type":"number","minimum":-2.75,"maximum":-0.5})",
           {"-2.75", "-1", "-0.5", "-2.7"},
           {"-2.76", "-0.4", "0", "-3"}});
    check({R"({"type":"number","minimum":0.1})", {"0.1", "12.5", "0.11"}, {"0.09", "0", "-1"}});
    check({R"({"type":"integer","multipleOf":1,"maximum":-1})", {"-1", "-20"}, {"0", "-0", "1"}});
}

TEST(JsonSchema, Multiples) {
    check(
        {R"({"type":"integer","multipleOf":5})", {"0", "5", "-10", "1234567890"}, {"1", "-6", "5.0", "05"}});
    check({R"({"type":"integer","minimum":7,"maximum":100,"multipleOf":7})",
           {"7", "14", "98"},
           {"0", "8", "105"}});
    check({R"({"type":"integer","minimum":-20,"exclusiveMaximum":10,"multipleOf":10})",
           {"-20", "-10", "0"},
           {"10", "-5"}});
    check({R"({"type":"number","multipleOf":0.01})", {"0", "12.5", "12.50", "-0.01"}, {"0.001", "1.", "-0"}});
    check({R"({"type":"number","multipleOf":0.25,"minimum":0,"maximum":1.3})",
           {"0.25", "0.5", "1.25", "1.0"},
           {"0.3", "1.5", "-0.25", "1.27"}});
    check({R"({"type":"integer","multipleOf":1.5})", {"3", "0", "-6"}, {"1", "1.5", "4"}});
    check({R"({"type":"number","multipleOf":1})", {"3", "-1"}, {"1.5"}});
    check({R"({"enum":[5,6,7.5,"x"],"multipleOf":2.5})", {"5", "7.5", R"("x")"}, {"6"}});
    check({R"({"type":"integer","multipleOf":1})", {"123456789012345678"}, {"1.0"}});
    check({R"({"type":"integer","minimum":12345678901,"multipleOf":1000})",
           {"12345679000"},
           {"12345678901", "1000"}});
}

// Draft 4, and with it OpenAPI 3.0: the keyword says whether the other one's bound is left out.
TEST(JsonSchema, BoundsOfDraft4) {
    check({R"({"type":"integer","minimum":0,"exclusiveMinimum":true,"maximum":9,"exclusiveMaximum":true})",
           {"1", "8"},
           {"0", "9", "-1"}});
    check(
        {R"({"type":"integer","minimum":0,"exclusiveMinimum":false,"maximum":9})", {"0", "9"}, {"-1", "10"}});
    check({R"({"type":"integer","exclusiveMinimum":true})", {"0", "-5"}, {"0.5"}});
    check({R"({"enum":[0,1,2],"minimum":0,"exclusiveMinimum":true})", {"1", "2"}, {"0"}});
    check({R"({"allOf":[{"type":"integer","minimum":3,"exclusiveMinimum":true},{"minimum":5}]})",
           {"5", "6"},
           {"3", "4"}});
    check({R"({"allOf":[{"type":"integer","minimum":3,"exclusiveMinimum":false},{"maximum":9},
                        {"maximum":7,"exclusiveMaximum":true}]})",
           {"3", "6"},
           {"2", "7"}});
}

TEST(JsonSchema, BoundsOfListedNumbers) {
    check({R"({"enum":[100000000000000000,9007199254740993,1e30,-1e30]})",
           {"100000000000000000", "9007199254740993"},
           {"9007199254740992"}});
    check({R"({"enum":[9007199254740992,9007199254740993,7],"minimum":9007199254740993})",
           {"9007199254740993"},
           {"9007199254740992", "7"}});
    check({R"({"enum":[-1,0,0.5,1,2],"exclusiveMinimum":-1,"exclusiveMaximum":2,"maximum":1})",
           {"0", "0.5", "1"},
           {"-1", "2"}});
}

TEST(JsonSchema, Combinations) {
    check({R"({"anyOf":[{"type":"integer"},{"type":"string"}]})", {"1", R"("a")"}, {"null"}});
    check({R"({"type":"object","properties":{"k":{"type":"integer"}},"required":["k"],
               "oneOf":[{"properties":{"x":{"type":"null"}},"required":["x"]},{"properties":{"y":{"type":"null"}}}]})",
           {R"({"k":1,"x":null})", R"({"k":1})", R"({"k":1,"y":null})"},
           {R"({"x":null})", R"({"k":1,"x":null,"y":null})"}});
    check({R"({"allOf":[{"type":"integer","minimum":3},{"type":"number","maximum":5}]})",
           {"3", "5"},
           {"2", "6", "3.5"}});
    // What one side says of items behind its places holds for the other's places.
    check(
        {R"({"allOf":[{"type":"array","items":{"type":"integer"}},{"prefixItems":[true,{"maximum":5}],"items":{"minimum":3}}]})",
         {"[]", "[1]", "[1,2]", "[1,2,3]"},
         {R"(["a"])", R"([1,"a"])", "[1,6]", "[1,2,2]"}});
    check({R"({"allOf":[{"items":[{"type":"integer"}],"additionalItems":{"type":"null"}},
            {"type":"array","prefixItems":[true,true]}]})",
           {"[]", "[1]", "[1,null]", "[1,null,null]"},
           {R"(["a"])", "[1,1]"}});
    check({R"({"const":1,"enum":[1,2]})", {"1"}, {"2"}});
    check({R"({"enum":[1,2],"const":1})", {"1"}, {"2"}});
    check({R"({"allOf":[{"properties":{"a":{"type":"integer"}},"required":["a"]},
               {"properties":{"a":{"minimum":5},"b":{"type":"null"}},"required":["b"]}]})",
           {R"({"a":7,"b":null})"},
           {R"({"a":7})", R"({"a":1,"b":null})"}});
    check({R"({"$ref":"#/$defs/a%20b~1c","$defs":{"a b/c":{"type":"null"}}})", {"null"}, {"1"}});
    check(
        {R"({"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},
               "required":["v","next"]})",
         {R"({"v":1,"next":null})", R"({"v":1,"next":{"v":2,"next":null}})"},
         {R"({"v":1,"next":{"v":2}})"}});
    check({R"({"allOf":[{"$ref":"#/definitions/base"}],"description":"d","properties":{"child":{"$ref":"#"}},
               "definitions":{"base":{"properties":{"id":{"type":"integer"}},"required":["id"]}}})",
           {R"({"id":1})"},
           {"{}"}});
    check({R"({"anyOf":[{"type":"integer"},false]})", {"1"}, {"\"a\""}});
}

// The message names what is at fault, and where.
TEST(JsonSchema, Refusals) {
    const auto message = [](const char* schema) -> std::string {
        try {
            schema_grammar(schema);
        } catch (const GrammarError& error) {
            return error.what();
        }
        return "accepted";
    };
    const auto expect = [&](const char* schema, const char* part) {
        EXPECT_NE(message(schema).find(part), std::string::npos) << schema << ": " << message(schema);
    };
    expect(R"({"not":{}})", "'not'");
    expect(R"({"properties":{"a":{"items":{"patternProperties":{}}}}})",
           "#/properties/a/items: the keyword 'patternProperties'");
    for (const char* keyword : {"if", "contains", "dependentRequired", "$dynamicRef", "frobnicate"}) {
        expect((std::string("{\"") + keyword + "\":{}}").c_str(), keyword);
    }
    expect(R"({"propertyNames":{"minLength":2}})", "'propertyNames'");
    expect(R"({"propertyNames":{"$ref":"#/propertyNames"}})", "without end");
    expect(R"({"propertyNames":{"$ref":5}})", "'$ref' must be a string");
    expect(R"({"propertyNames":{"enum":["a"]},"required":["b"]})", "nothing can satisfy");
    expect(R"({"propertyNames":{"enum":["a"]},"minProperties":1})", "'minProperties'");
    expect(R"({"uniqueItems":true})", "'uniqueItems'");
    expect(R"({"multipleOf":0})", "'multipleOf'");
    expect(R"({"multipleOf":1001})", "'multipleOf'");
    expect(R"({"multipleOf":0.0000001})", "'multipleOf'");
    expect(R"({"type":"integer","minimum":11,"maximum":14,"multipleOf":5})", "nothing can satisfy");
    expect(R"({"format":"iri"})", "'iri'");
    expect(R"j({"pattern":"(?=x)"})j", "pattern");
    expect(R"j({"pattern":"(?=x)","format":"email"})j", "pattern");
    expect(R"({"type":"strin"})", "'strin'");
    expect(R"({"$ref":"#"})", "nothing can satisfy");
    expect(R"({"anyOf":[{"$ref":"#"},{"type":"null"}]})", "without end");
    expect(R"({"allOf":[{"$ref":"#"},{"type":"null"}]})", "without end");
    OrderedJson doubling = {{"$ref", "#/$defs/a0"}};  // 2^30 schemas in two kilobytes
    for (int i = 0; i < 30; ++i) {
        const OrderedJson next = {{"$ref", "#/$defs/a" + std::to_string(i + 1)}};
        doubling["$defs"]["a" + std::to_string(i)] = {{"allOf", OrderedJson::array({next, next})}};
    }
    doubling["$defs"]["a30"] = {{"type", "null"}};
    expect(doubling.dump().c_str(), "too many");
    for (int i = 0; i < 5000; ++i) {  // of which every copy is dear
        doubling["$defs"]["a30"]["enum"].push_back(i);
    }
    expect(doubling.dump().c_str(), "too many");
    OrderedJson lists = OrderedJson::parse(R"({"allOf":[{"enum":[-1]},{"enum":[-2]}]})");
    for (int i = 0; i < 5000; ++i) {
        lists["allOf"][0]["enum"].push_back(i);
        lists["allOf"][1]["enum"].push_back(i);
    }
    expect(lists.dump().c_str(), "of so many values");
    OrderedJson types = {{"type", OrderedJson::array()}};
    for (int i = 0; i < 200000; ++i) {  // quadratic, it would take minutes
        types["type"].push_back("string");
    }
    EXPECT_EQ(read_with(schema_grammar(types.dump()), "\"a\""), Reading::whole);
    types["type"].push_back("strin");
    expect(types.dump().c_str(), "'strin'");
    OrderedJson required = {{"type", "object"}, {"required", OrderedJson::array()}};
    for (int i = 0; i < 200000; ++i) {
        required["required"].push_back("r" + std::to_string(i));
    }
    expect(required.dump().c_str(), "states");
    OrderedJson properties = OrderedJson::object();
    for (int i = 0; i < 3000; ++i) {
        properties["p" + std::to_string(i)] = true;
    }
    OrderedJson alike = {
        {"allOf", {{{"properties", properties}, {"required", {"a"}}}, {{"properties", properties}}}}};
    expect(alike.dump().c_str(), "of so many");
    OrderedJson keywords = OrderedJson::object();
    for (int i = 0; i < 2000; ++i) {
        keywords["x-" + std::to_string(i)] = true;
    }
    expect(keywords.dump().c_str(), "keywords");
    OrderedJson deep = {{"type", "null"},
                        {"description", std::string(16U << 20, 'x')}};  // a copy at every depth
    for (int i = 0; i < 90; ++i) {
        deep = {{"items", std::move(deep)}};
    }
    expect(deep.dump().c_str(), "too large");
    expect(R"({"allOf":[{"items":{"$ref":"#/$defs/a"}},{"items":{"$ref":"#/$defs/b"}}],"$defs":{
        "a":{"items":{"allOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/b"}]}},"b":{"items":{"$ref":"#/$defs/a"}}}})",
           "too many");
    expect(R"({"$ref":"#/$defs/x"})", "names nothing");
    expect(R"({"$ref":"http://x/y"})", "leaves the schema");
    expect(R"({"allOf":[{"type":"string"},{"type":"null"}]})", "nothing can satisfy");
    expect(R"({"type":"integer","minimum":2,"maximum":1})", "nothing can satisfy");
    expect(R"({"type":"string","minLength":6,"maxLength":3})", "nothing can satisfy");
    expect(R"({"additionalProperties":{"type":"integer"},"minProperties":6,"maxProperties":3})",
           "nothing can satisfy");
    expect(R"({"items":{"type":"integer"},"minItems":6,"maxItems":3})", "nothing can satisfy");
    expect(R"({"prefixItems":[{"type":"integer"}],"minItems":6,"maxItems":1})", "nothing can satisfy");
    expect(R"({"prefixItems":[{"type":"integer"}],"items":false,"minItems":2})", "nothing can satisfy");
    expect(R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})", "nothing can satisfy");
    expect(R"({"minLength":-1})", "minLength");
    expect(R"({"properties":[]})", "'properties' must be an object");
    expect("3", "a schema must be");
    expect(R"({"type":"string","pattern":"^a{1000}$","maxLength":1000,"minLength":"x"})", "minLength");
    expect(R"j({"pattern":"^(.{300}|[a-c]{500}){30}$","maxLength":9000})j", "states");
}

}  // namespace
}  // namespace llm::engine
