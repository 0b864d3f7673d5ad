// The client's side of a TLS connection over a connected, blocking socket, whose own time limits count.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include <openssl/ssl.h>

namespace llm::engine {

class TlsSession {
  public:
    // Shakes hands and checks the server's certificate against the system's authorities (SSL_CERT_FILE and
    // SSL_CERT_DIR count, as everywhere with OpenSSL) and `host`, a name or a numeric address. Returns an
    // empty string, or why not.
    std::string open(int socket, const std::string& host);

    // As read(2) and write(2): a number of bytes, 0 at the end, −1 with errno.
    ssize_t read(char* bytes, size_t size);
    ssize_t write(const char* bytes, size_t size);
    // What TLS itself has to say of the last failure (an alert of the server: it wants a certificate, say);
    // may be empty.
    const std::string& problem() const { return problem_; }

  private:
    struct Free {
        void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
        void operator()(SSL* session) const { SSL_free(session); }
    };
    ssize_t outcome(int result);

    std::unique_ptr<SSL_CTX, Free> context_;
    std::unique_ptr<SSL, Free> session_;
    std::string problem_;
};

}  // namespace llm::engine
