#include "engine_worker/server/tls_session.hpp"

#include <arpa/inet.h>
#include <openssl/err.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "shared/tls_peer.hpp"

namespace llm::engine {
namespace {

bool is_address(const std::string& host) {
    unsigned char bytes[16];
    return inet_pton(AF_INET, host.c_str(), bytes) == 1 || inet_pton(AF_INET6, host.c_str(), bytes) == 1;
}

std::string why_no_handshake(const SSL* session, int saved_errno) {
    if (std::string problem = certificate_problem(session); !problem.empty()) {
        return problem;
    }
    const bool late = saved_errno == EAGAIN || saved_errno == EWOULDBLOCK;
    const char* const reason = ERR_reason_error_string(ERR_peek_error());
    return std::string("the TLS handshake failed") + (late                ? ": no answer in time"
                                                      : reason != nullptr ? std::string(": ") + reason
                                                                          : "");
}

}  // namespace

std::string TlsSession::open(int socket, const std::string& host) {
    ERR_clear_error();
    session_.reset();
    context_.reset(SSL_CTX_new(TLS_client_method()));
    if (context_ == nullptr || SSL_CTX_set_min_proto_version(context_.get(), TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_default_verify_paths(context_.get()) != 1) {
        return "TLS cannot be set up";
    }
    SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, nullptr);
    session_.reset(SSL_new(context_.get()));
    if (session_ == nullptr || !expect_peer(session_.get(), host, is_address(host)) ||
        SSL_set_fd(session_.get(), socket) != 1) {
        return "TLS cannot be set up";
    }
    int result;
    do {
        ERR_clear_error();
        errno = 0;
        result = SSL_connect(session_.get());
    } while (result != 1 && errno == EINTR);
    return result == 1 ? "" : why_no_handshake(session_.get(), errno);
}

ssize_t TlsSession::read(char* bytes, size_t size) {
    ERR_clear_error();
    errno = 0;
    return outcome(SSL_read(session_.get(), bytes, static_cast<int>(std::min<size_t>(size, INT_MAX))));
}

ssize_t TlsSession::write(const char* bytes, size_t size) {
    ERR_clear_error();
    errno = 0;
    const ssize_t written =
        outcome(SSL_write(session_.get(), bytes, static_cast<int>(std::min<size_t>(size, INT_MAX))));
    if (written < 0 && (errno == ECONNRESET || errno == EPIPE)) {
        const int saved = errno;
        char byte;
        read(&byte, 1);  // with what alert the server has gone: problem()
        errno = saved;
    }
    return written;
}

ssize_t TlsSession::outcome(int result) {
    if (result > 0) {
        return result;
    }
    switch (SSL_get_error(session_.get(), result)) {
        case SSL_ERROR_ZERO_RETURN:
            return 0;
        case SSL_ERROR_WANT_READ:
        case SSL_ERROR_WANT_WRITE:  // the socket's time limit, or a process that was stopped and goes on
            errno = errno == EINTR ? EINTR : EAGAIN;
            return -1;
        default: {
            const char* const reason = ERR_reason_error_string(ERR_peek_error());
            problem_ = reason != nullptr ? reason : "";
            errno = errno != 0 ? errno : EPROTO;
            return -1;
        }
    }
}

}  // namespace llm::engine
