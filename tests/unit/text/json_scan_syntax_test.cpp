// RFC 8259 as JsonScan reads it: each document whole, cut in two at every place, and byte by byte.
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "ngx_module/core/text/json_scan.hpp"
#include "tests/unit/text/guarded_pages.hpp"

namespace llm::core {
namespace {

using namespace std::string_view_literals;

// Nothing beyond the pieces may be read.
ErrorKind scan_cut(std::string_view body, size_t cut) {
    static GuardedPages pages(1 << 16);
    JsonScan scan;
    scan.feed(pages.at_end(body.substr(0, cut)));
    scan.feed(pages.at_end(body.substr(cut)));
    return scan.finish() ? ErrorKind::none : scan.error_kind();
}

// The verdict, which must be the same for every chunking.
ErrorKind verdict(std::string_view body) {
    const ErrorKind whole = scan_cut(body, body.size());
    for (size_t cut = 0; cut < body.size(); ++cut) {
        EXPECT_EQ(scan_cut(body, cut), whole) << body << " cut at " << cut;
    }
    JsonScan bytewise;
    for (const char& c : body) {
        bytewise.feed({&c, 1});
    }
    EXPECT_EQ(bytewise.finish(), whole == ErrorKind::none) << body;
    EXPECT_EQ(bytewise.error_kind(), whole) << body;
    return whole;
}

// `value` as a member, as an element, and deeper; near the end, and far from it.
ErrorKind value_verdict(std::string_view value) {
    const std::string text(value);
    const ErrorKind member = verdict("{\"k\":" + text + "}");
    const bool valid = member == ErrorKind::none;
    const std::string behind(100, ' ');
    EXPECT_EQ(verdict("{\"k\":" + text + "}" + behind) == ErrorKind::none, valid) << text;
    EXPECT_EQ(verdict("{\"k\": " + text + ",\"n\":1}" + behind) == ErrorKind::none, valid) << text;
    EXPECT_EQ(verdict("{\"prompt\":[1, " + text + ",2]}" + behind) == ErrorKind::none, valid) << text;
    EXPECT_EQ(verdict("{\"k\":[" + text + "]}") == ErrorKind::none, valid) << text;
    EXPECT_EQ(verdict("{\"k\":[{\"a\":[0," + text + " ,\"tail\"]}]}") == ErrorKind::none, valid) << text;
    return member;
}

TEST(JsonScanSyntax, AcceptsValidDocuments) {
    for (std::string_view body : {
             "{}"sv,
             " { } "sv,
             "\t\r\n{\n}\n"sv,
             R"({"":0})"sv,
             R"({"a":1,"a":2})"sv,
             R"({"a":{"model":1}})"sv,
             R"({"a":[],"b":{},"c":[[],{}]})"sv,
             R"({"a" : [ 1 , 2 ] , "b" : { "c" : null } })"sv,
             R"({"model":"m"})"sv,
             R"({"unknown":{"stream":"yes","priority":"x"}})"sv,
         }) {
        EXPECT_EQ(verdict(body), ErrorKind::none) << body;
    }
}

TEST(JsonScanSyntax, AcceptsValidValues) {
    for (std::string_view value : {
             "0"sv,
             "-0"sv,
             "1"sv,
             "-1"sv,
             "10"sv,
             "123456789012345678901234567890"sv,
             "0.0"sv,
             "-0.5"sv,
             "1.25e10"sv,
             "1e400"sv,
             "1E+2"sv,
             "1e-2"sv,
             "0e0"sv,
             "0E-0"sv,
             "-0e+9"sv,
             "9.5E9"sv,
             "true"sv,
             "false"sv,
             "null"sv,
             "\"\""sv,
             R"("a")"sv,
             R"("\"\\\/\b\f\n\r\t")"sv,
             R"("\u0000\u001F\uFFFF\ud83D\uDe00")"sv,
             "\"\x7f\""sv,
             "\"\xc2\x80\xdf\xbf\""sv,
             "\"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\""sv,
             "\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\""sv,
             "\"\xef\xbb\xbf\""sv,
             "[[[[]]]]"sv,
             R"({"a":{"b":{}}})"sv,
         }) {
        EXPECT_EQ(value_verdict(value), ErrorKind::none) << value;
    }
}

TEST(JsonScanSyntax, SkipsLongWhiteSpace) {
    const std::string_view tokens[] = {"{", "\"a\"", ":", "[", "1",          ",", "\"b\"", ",",
                                       "{", "}",     "]", ",", "\"prompt\"", ":", "[",     "2",
                                       ",", "3",     "]", ",", "\"z\"",      ":", "true",  "}"};
    for (size_t at = 0; at <= std::size(tokens); ++at) {
        for (const std::string& space : {std::string(200, ' '), std::string(90, '\n')}) {
            std::string body;
            for (size_t i = 0; i < std::size(tokens); ++i) {
                body += (i == at ? space : "") + std::string(tokens[i]);
            }
            body += at == std::size(tokens) ? space : "";
            EXPECT_EQ(verdict(body), ErrorKind::none) << body;
        }
    }
}

TEST(JsonScanSyntax, RefusesMalformedValues) {
    for (std::string_view value : {
             "00"sv,
             "01"sv,
             "-01"sv,
             "-"sv,
             "+1"sv,
             "-a"sv,
             "--1"sv,
             ".5"sv,
             "1."sv,
             "1.e1"sv,
             "-.1"sv,
             "1e"sv,
             "1e+"sv,
             "1e1.5"sv,
             "1.2.3"sv,
             "0x10"sv,
             "1_000"sv,
             "1 2"sv,
             "0e"sv,
             "0.e1"sv,
             "Infinity"sv,
             "-Infinity"sv,
             "NaN"sv,
             "nan"sv,
             "tru"sv,
             "True"sv,
             "TRUE"sv,
             "truee"sv,
             "nul"sv,
             "nulll"sv,
             "fals"sv,
             "undefined"sv,
             "'a'"sv,
             "a"sv,
             "\"a"sv,
             "\"\t\""sv,
             "\"\n\""sv,
             "\"\x1f\""sv,
             "\"a\0b\""sv,
             R"("\a")"sv,
             R"("\'")"sv,
             R"("\x41")"sv,
             R"("\u12")"sv,
             R"("\u12G4")"sv,
             R"("\U1234")"sv,
             "\"\\"sv,
             "\"\\\""sv,
             R"("a""b")"sv,
             "[1,]"sv,
             "[,1]"sv,
             "[1,,2]"sv,
             "[1"sv,
             "[1 2]"sv,
             "[1}"sv,
             "{]"sv,
             R"({"a"})"sv,
             R"({"a":})"sv,
             R"({"a":1,})"sv,
             R"({,"a":1})"sv,
             R"({"a" 1})"sv,
             R"({"a"::1})"sv,
             R"({a:1})"sv,
             R"({1:1})"sv,
             R"({'a':1})"sv,
             R"({"a":1 "b":2})"sv,
             R"({"a":1;"b":2})"sv,
             "]"sv,
             "}"sv,
             ","sv,
             ":"sv,
             "/**/1"sv,
             "1//"sv,
             "\v1"sv,
             "\f1"sv,
             "\0"sv,
             "\xc2\xa0"sv,
         }) {
        EXPECT_NE(value_verdict(value), ErrorKind::none) << value;
    }
}

TEST(JsonScanSyntax, RefusesWhatIsAroundTheObject) {
    EXPECT_EQ(verdict(""), ErrorKind::empty);
    EXPECT_EQ(verdict(" "), ErrorKind::truncated);
    EXPECT_EQ(verdict("{"), ErrorKind::truncated);
    EXPECT_EQ(verdict(R"({"a":1)"), ErrorKind::truncated);
    EXPECT_EQ(verdict(R"({"a":")"), ErrorKind::truncated);
    EXPECT_EQ(verdict("{\"a\":\"\xe2\x82"), ErrorKind::truncated);
    for (std::string_view body :
         {"{}x"sv, "{}{}"sv, "{} {}"sv, "{},"sv, "{}]"sv, "{}}"sv, "{}\0"sv, "{}\xef\xbb\xbf"sv}) {
        EXPECT_EQ(verdict(body), ErrorKind::syntax) << body;
    }
    EXPECT_EQ(verdict("\xef\xbb\xbf{}"), ErrorKind::syntax);
    EXPECT_EQ(verdict("\xff\xfe{\0}\0"sv), ErrorKind::syntax);
    EXPECT_EQ(verdict("\0{}"sv), ErrorKind::syntax);
    for (std::string_view body :
         {"[]"sv, "[{}]"sv, "\"model\""sv, "1"sv, "-1"sv, "true"sv, "null"sv, " false"sv}) {
        EXPECT_EQ(verdict(body), ErrorKind::not_object) << body;
    }
}

TEST(JsonScanSyntax, RefusesInvalidUtf8) {
    const std::string fill(40, 'x');  // puts the fault inside, at the start and at the end of vector blocks
    for (std::string_view bad : {
             "\x80"sv,
             "\xbf"sv,
             "\xc0\x80"sv,
             "\xc1\xbf"sv,
             "\xc2"sv,
             "\xc2 "sv,
             "\xc2\xc2\x80"sv,
             "\xe0\x80\x80"sv,
             "\xe0\x9f\xbf"sv,
             "\xe2\x82"sv,
             "\xe2\x82 "sv,
             "\xe2\x28\xa1"sv,
             "\xed\xa0\x80"sv,
             "\xed\xbf\xbf"sv,
             "\xf0\x80\x80\x80"sv,
             "\xf0\x8f\xbf\xbf"sv,
             "\xf0\x9f\x98"sv,
             "\xf0\x9f\x98 "sv,
             "\xf0\x28\x8c\xbc"sv,
             "\xf4\x90\x80\x80"sv,
             "\xf5\x80\x80\x80"sv,
             "\xf8\x88\x80\x80\x80"sv,
             "\xfe"sv,
             "\xff"sv,
             "\xc2\x80\x80"sv,
             "\xe2\x82\xac\x80"sv,
             "\xf0\x9f\x98\x80\x80"sv,
         }) {
        for (size_t before = 0; before <= fill.size(); ++before) {
            const std::string body = "{\"k\":\"" + fill.substr(0, before) + std::string(bad) + fill + "\"}";
            JsonScan scan;
            scan.feed(body);
            EXPECT_FALSE(scan.finish());
            EXPECT_EQ(scan.error_kind(), ErrorKind::invalid_utf8);
        }
        EXPECT_EQ(value_verdict("\"" + std::string(bad) + "\""), ErrorKind::invalid_utf8);
        EXPECT_EQ(verdict("{\"" + std::string(bad) + "\":1}"), ErrorKind::invalid_utf8);
    }
}

TEST(JsonScanSyntax, RefusesLoneSurrogateEscapes) {
    for (std::string_view value :
         {R"("\ud800")"sv, R"("\udc00")"sv, R"("\udfff\ud800")"sv, R"("\ud800\ud800")"sv, R"("\ud800x")"sv,
          R"("\ud800\n")"sv, R"("\ud800\u0041")"sv, R"("\uDBFF\uDBFF\uDC00")"sv}) {
        EXPECT_EQ(value_verdict(value), ErrorKind::invalid_utf8) << value;
    }
}

TEST(JsonScanSyntax, LimitsTheDepth) {
    const auto nested = [](size_t depth, bool objects) {
        std::string body;
        for (size_t i = 0; i < depth; ++i) {
            body += objects || i == 0 ? "{\"a\":" : "[";
        }
        body += "0";
        for (size_t i = depth; i-- > 0;) {
            body += objects || i == 0 ? "}" : "]";
        }
        return body;
    };
    for (bool objects : {false, true}) {
        EXPECT_EQ(verdict(nested(JsonScan::kMaxDepth, objects)), ErrorKind::none);
        EXPECT_EQ(verdict(nested(JsonScan::kMaxDepth + 1, objects)), ErrorKind::depth);
    }
    JsonScan scan;
    scan.feed(nested(1'000'000, false));
    EXPECT_EQ(scan.error_kind(), ErrorKind::depth);
}

TEST(JsonScanSyntax, ChecksThatBracketsMatch) {
    // Every choice of six opening and six closing brackets.
    constexpr unsigned kCount = 6;
    for (unsigned opening = 0; opening < 1u << kCount; ++opening) {
        for (unsigned closing = 0; closing < 1u << kCount; ++closing) {
            std::string body = "{\"k\":";
            for (unsigned i = 0; i < kCount; ++i) {
                body += (opening >> i) & 1 ? "{\"k\":" : "[";
            }
            body += "0";
            for (unsigned i = kCount; i-- > 0;) {
                body += (closing >> i) & 1 ? "}" : "]";
            }
            JsonScan scan;
            scan.feed(body + "}");
            EXPECT_EQ(scan.finish(), opening == closing) << body;
        }
    }
}

TEST(JsonScanSyntax, SaysWhereTheFaultIs) {
    JsonScan scan;
    scan.feed(R"({"a":[1,2)");
    EXPECT_FALSE(scan.failed());
    scan.feed(R"(,x]})");
    EXPECT_TRUE(scan.failed());
    EXPECT_EQ(scan.error_offset(), 10u);
    EXPECT_STRNE(scan.error(), "");
    scan.feed("more");
    EXPECT_EQ(scan.error_offset(), 10u);
}

}  // namespace
}  // namespace llm::core
