#include "engine_worker/server/http_head.hpp"

#include <array>
#include <ctime>
#include <string_view>

namespace llm::engine {
namespace {

std::string_view reason_phrase(int status) {
    switch (status) {
        case 200:
            return "OK";
        case 202:
            return "Accepted";
        case 400:
            return "Bad Request";
        case 401:
            return "Unauthorized";
        case 404:
            return "Not Found";
        case 405:
            return "Method Not Allowed";
        case 408:
            return "Request Timeout";
        case 413:
            return "Content Too Large";
        case 415:
            return "Unsupported Media Type";
        case 417:
            return "Expectation Failed";
        case 429:
            return "Too Many Requests";
        case 431:
            return "Request Header Fields Too Large";
        case 500:
            return "Internal Server Error";
        case 501:
            return "Not Implemented";
        case 503:
            return "Service Unavailable";
        case 505:
            return "HTTP Version Not Supported";
        default:
            return "Status";
    }
}

// RFC 9110 section 5.6.7; recomputed once a second.
std::string_view http_date() {
    static std::time_t of = 0;
    static std::array<char, 64> text{};
    const std::time_t now = std::time(nullptr);
    if (now != of) {
        of = now;
        std::tm parts{};
        gmtime_r(&now, &parts);
        std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
    }
    return text.data();
}

}  // namespace

void append_head(std::string& out, const HttpReply& reply, const HttpHeaders& more, HeadFraming framing,
                 Persistence persistence) {
    out += "HTTP/1.1 ";
    out += std::to_string(reply.status);
    out += ' ';
    out += reason_phrase(reply.status);
    out += "\r\ndate: ";
    out += http_date();
    out += "\r\ncontent-type: ";
    out += reply.content_type;
    for (const HttpHeaders* headers : {&reply.headers, &more}) {
        for (const auto& [name, value] : *headers) {
            out += "\r\n";
            out += name;
            out += ": ";
            out += value;
        }
    }
    if (framing == HeadFraming::chunked) {
        out += "\r\ntransfer-encoding: chunked";
    } else if (framing == HeadFraming::length) {
        out += "\r\ncontent-length: ";
        out += std::to_string(reply.body.size());
    }
    out += persistence == Persistence::close        ? "\r\nconnection: close\r\n\r\n"
           : persistence == Persistence::keep_alive ? "\r\nconnection: keep-alive\r\n\r\n"
                                                    : "\r\n\r\n";
}

}  // namespace llm::engine
