#include "ngx_module/sources/resp_codec.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <string>
#include <vector>

namespace llm::nginx::sources {
namespace {

std::string command(std::initializer_list<std::string_view> words) {
    std::string out;
    append_command(out, words);
    return out;
}

TEST(RespCodec, WritesCommands) {
    EXPECT_EQ(command({"PING"}), "*1\r\n$4\r\nPING\r\n");
    EXPECT_EQ(command({"AUTH", "a b", ""}), "*3\r\n$4\r\nAUTH\r\n$3\r\na b\r\n$0\r\n\r\n");
    EXPECT_EQ(command({"GET", std::string_view("k\r\n\0", 4)}),
              std::string("*2\r\n$3\r\nGET\r\n$4\r\nk\r\n\0\r\n", 23));
}

TEST(RespCodec, ReadsRepliesCutAnywhere) {
    const std::string stream =
        "+PONG\r\n-ERR no\r\n:42\r\n$-1\r\n*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\na\nb\r\n";
    for (size_t piece = 1; piece <= stream.size(); ++piece) {
        ReplyReader reader;
        std::vector<Reply> replies;
        for (size_t at = 0; at < stream.size(); at += piece) {
            ASSERT_TRUE(reader.feed(std::string_view(stream).substr(at, piece)));
            while (Reply reply = reader.next()) {
                replies.push_back(std::move(reply));
            }
        }
        ASSERT_EQ(replies.size(), 5u) << piece;
        EXPECT_EQ(text_of(*replies[0]), "PONG");
        EXPECT_TRUE(is_error(*replies[1]));
        EXPECT_EQ(text_of(*replies[1]), "ERR no");
        EXPECT_EQ(replies[2]->integer, 42);
        EXPECT_FALSE(is_text(*replies[3]));
        const auto parts = elements_of(*replies[4]);
        ASSERT_EQ(parts.size(), 3u);
        EXPECT_EQ(text_of(*parts[0]), "message");
        EXPECT_EQ(text_of(*parts[2]), "a\nb");
    }
}

TEST(RespCodec, BreaksOnGarbageAndStaysBroken) {
    ReplyReader reader;
    ASSERT_TRUE(reader.feed("HTTP/1.1 400 Bad Request\r\n"));
    EXPECT_EQ(reader.next(), nullptr);
    EXPECT_FALSE(reader.error().empty());
    EXPECT_FALSE(reader.feed("+OK\r\n"));
}

TEST(RespCodec, RefusesBoundlessReplies) {
    ReplyReader arrays;
    ASSERT_TRUE(arrays.feed("*2000000000\r\n"));
    EXPECT_EQ(arrays.next(), nullptr);
    EXPECT_FALSE(arrays.error().empty());

    ReplyReader strings;
    const std::string piece(1 << 20, 'x');
    ASSERT_TRUE(strings.feed("$1000000000\r\n"));
    size_t fed = 0;
    while (strings.feed(piece)) {
        EXPECT_EQ(strings.next(), nullptr);
        fed += piece.size();
        ASSERT_LE(fed, 2 * kMaxReplyBytes);
    }
    EXPECT_FALSE(strings.error().empty());
}

TEST(RespCodec, TakesALargeMessage) {
    const std::string payload(300'000, 'x');
    ReplyReader reader;
    ASSERT_TRUE(reader.feed("$300000\r\n" + payload + "\r\n"));
    const Reply reply = reader.next();
    ASSERT_NE(reply, nullptr);
    EXPECT_EQ(text_of(*reply), payload);
}

// Over a real socket: whatever pieces the kernel makes of it.
TEST(RespCodec, SpeaksOverASocket) {
    std::array<int, 2> ends{};
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
    std::string sent;
    append_command(sent, {"MGET", "a", std::string(100'000, 'k')});
    ReplyReader reader;  // a command is itself an array of strings
    Reply reply;
    size_t written = 0;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    std::array<char, 4096> buffer{};
    while (reply == nullptr && std::chrono::steady_clock::now() < deadline) {
        if (written < sent.size()) {
            const ssize_t n = send(ends[0], sent.data() + written, sent.size() - written, MSG_DONTWAIT);
            written += n > 0 ? static_cast<size_t>(n) : 0;
        }
        const ssize_t n = recv(ends[1], buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (n > 0) {
            ASSERT_TRUE(reader.feed({buffer.data(), static_cast<size_t>(n)}));
            reply = reader.next();
        }
    }
    close(ends[0]);
    close(ends[1]);
    ASSERT_NE(reply, nullptr);
    ASSERT_EQ(reply->elements, 3u);
    EXPECT_EQ(text_of(*reply->element[2]).size(), 100'000u);
}

}  // namespace
}  // namespace llm::nginx::sources
