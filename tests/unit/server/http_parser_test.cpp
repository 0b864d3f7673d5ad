#include "engine_worker/server/http_parser.hpp"

#include <gtest/gtest.h>

namespace llm::engine {
namespace {

using State = HttpParser::State;

HttpLimits small() {
    HttpLimits limits;
    limits.max_head = 1024;
    limits.max_headers = 5;
    limits.max_body = 100;
    return limits;
}

// Feeds `text` in pieces of `piece` bytes; what is left over is returned in `rest`.
HttpParser parse(const std::string& text, size_t piece = 1 << 20, std::string* rest = nullptr) {
    HttpParser parser(small());
    std::string pending;
    for (size_t at = 0; at < text.size(); at += piece) {
        pending += text.substr(at, piece);
        pending.erase(0, parser.feed(pending));
    }
    if (rest != nullptr) {
        *rest = pending;
    }
    return parser;
}

int refusal(const std::string& text) {
    HttpParser whole = parse(text);
    HttpParser bytes = parse(text, 1);
    EXPECT_EQ(whole.state(), bytes.state()) << text;
    if (whole.state() != State::refused) {
        return 0;
    }
    EXPECT_EQ(whole.status(), bytes.status());
    EXPECT_FALSE(whole.reason().empty());
    return whole.status();
}

TEST(HttpParser, ReadsARequestHoweverItIsCut) {
    const std::string text =
        "POST /v1/chat%2Fx?a=1&b HTTP/1.1\r\nHost: h\r\nX-Thing:  some value \t\r\nContent-Length: "
        "5\r\n\r\nhelloNEXT";
    for (size_t piece = 1; piece < text.size(); ++piece) {
        std::string rest;
        HttpParser parser = parse(text, piece, &rest);
        ASSERT_EQ(parser.state(), State::complete) << piece;
        const HttpRequest& request = parser.request();
        EXPECT_EQ(request.method, "POST");
        EXPECT_EQ(request.path, "/v1/chat/x");
        EXPECT_EQ(request.query, "a=1&b");
        EXPECT_EQ(request.header("x-thing"), "some value");
        EXPECT_EQ(request.body, "hello");
        EXPECT_TRUE(request.keep_alive);
        EXPECT_EQ(rest, "NEXT");
    }
}

TEST(HttpParser, ReadsChunkedBodiesHoweverTheyAreCut) {
    const std::string text =
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n"
        "5\r\nhello\r\n0A;name=\"x\"\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\nNEXT";
    for (size_t piece = 1; piece < text.size(); ++piece) {
        std::string rest;
        HttpParser parser = parse(text, piece, &rest);
        ASSERT_EQ(parser.state(), State::complete) << piece << parser.reason();
        EXPECT_EQ(parser.request().body, "hello0123456789");
        EXPECT_EQ(rest, "NEXT");
    }
}

TEST(HttpParser, StartsAnewAfterReset) {
    HttpParser parser =
        parse("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n");
    ASSERT_EQ(parser.state(), State::complete);
    parser.reset();
    EXPECT_FALSE(parser.started());
    parser.feed("GET /two HTTP/1.1\r\nHost: h\r\n\r\n");
    ASSERT_EQ(parser.state(), State::complete);
    EXPECT_EQ(parser.request().path, "/two");
    EXPECT_EQ(parser.request().body, "");
}

TEST(HttpParser, KeepAliveFollowsVersionAndConnection) {
    EXPECT_TRUE(parse("GET / HTTP/1.1\r\nHost: h\r\n\r\n").request().keep_alive);
    EXPECT_FALSE(parse("GET / HTTP/1.1\r\nHost: h\r\nConnection: foo, Close\r\n\r\n").request().keep_alive);
    EXPECT_FALSE(parse("GET / HTTP/1.0\r\n\r\n").request().keep_alive);
    EXPECT_TRUE(parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").request().keep_alive);
}

TEST(HttpParser, RefusesWhatSmugglersSend) {
    const std::string post = "POST / HTTP/1.1\r\nHost: h\r\n";
    EXPECT_EQ(refusal(post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    EXPECT_EQ(refusal(post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"), 400);
    EXPECT_EQ(refusal(post + "Content-Length: 5, 5\r\n\r\n"), 400);
    EXPECT_EQ(refusal(post + "Content-Length: +5\r\n\r\n"), 400);
    EXPECT_EQ(refusal(post + "Content-Length: 0x5\r\n\r\n"), 400);
    EXPECT_EQ(refusal(post + "Content-Length:\r\n\r\n"), 400);
    EXPECT_EQ(refusal(post + "Content-Length: 99999999999999999999\r\n\r\n"), 400);
    EXPECT_EQ(refusal(post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    EXPECT_EQ(refusal(post + "Transfer-Encoding: gzip, chunked\r\n\r\n"), 501);
    EXPECT_EQ(refusal(post + "Transfer-Encoding: identity\r\n\r\n"), 501);
    EXPECT_EQ(refusal("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    EXPECT_EQ(refusal(post + "Content-Length : 5\r\n\r\n"), 400);
    EXPECT_EQ(refusal(post + "X: a\r\n folded\r\n\r\n"), 400);
    EXPECT_EQ(refusal(post + "X: a\nY: b\r\n\r\n"), 400);
    EXPECT_EQ(refusal("GET / HTTP/1.1\nHost: h\n\n"), 400);
    EXPECT_EQ(refusal(post + "X: a\rb\r\n\r\n"), 400);
    EXPECT_EQ(refusal(post + std::string("X: a\0b\r\n\r\n", 10)), 400);
}

TEST(HttpParser, RefusesBrokenChunks) {
    const std::string head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (const char* body : {"\r\n", "g\r\n", "-1\r\n", "5\nhello", "5\r\nhelloXY\r\n", "1 x\r\n", "0x1\r\n",
                             ";a\r\n", "5\r\nhello\n", "ffffffffffffffff\r\n"}) {
        EXPECT_EQ(refusal(head + body), 400) << body;
    }
    EXPECT_EQ(refusal(head + "65\r\n"), 413);  // 101 bytes
    EXPECT_EQ(refusal(head + "40\r\n" + std::string(64, 'x') + "\r\n40\r\n"), 413);
}

TEST(HttpParser, RefusesMalformedHeads) {
    for (const char* head :
         {"GET\r\n\r\n", "GET /\r\n\r\n", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
          "G T / x HTTP/1.1\r\nHost: h\r\n\r\n", "GET nowhere HTTP/1.1\r\nHost: h\r\n\r\n",
          "GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", "GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n",
          "GET / HTTP/1.1\r\n\r\n", "GET / FOO/1.1\r\nHost: h\r\n\r\n",
          "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
          "GET / HTTP/1.1\r\nHost: h\r\n: empty\r\n\r\n", "(x) / HTTP/1.1\r\nHost: h\r\n\r\n"}) {
        EXPECT_EQ(refusal(head), 400) << head;
    }
    EXPECT_EQ(refusal("GET / HTTP/2.0\r\nHost: h\r\n\r\n"), 505);
    EXPECT_EQ(refusal("GET / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n"), 417);
}

TEST(HttpParser, EnforcesItsLimits) {
    EXPECT_EQ(refusal("GET /" + std::string(2000, 'x')), 431);
    EXPECT_EQ(refusal("GET / HTTP/1.1\r\nHost: h\r\na: 1\r\nb: 1\r\nc: 1\r\nd: 1\r\ne: 1\r\n\r\n"), 431);
    EXPECT_EQ(refusal("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n\r\n"), 413);
    EXPECT_EQ(refusal("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n"), 0);
}

TEST(HttpParser, AnnouncesAnExpectedContinueOnce) {
    HttpParser parser =
        parse("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n");
    EXPECT_EQ(parser.state(), State::body);
    EXPECT_TRUE(parser.take_expect_continue());
    EXPECT_FALSE(parser.take_expect_continue());
}

}  // namespace
}  // namespace llm::engine
