#include "ngx_module/sources/tls_context.hpp"

#include "ngx_module/sources/host_resolver.hpp"
#include "shared/tls_peer.hpp"

namespace llm::nginx::sources {
namespace {

ngx_ssl_t context;

bool make_context(ngx_log_t* log) {
    if (context.ctx != nullptr) {
        return true;
    }
    context.log = log;
    if (ngx_ssl_create(&context, NGX_SSL_TLSv1_2 | NGX_SSL_TLSv1_3, nullptr) != NGX_OK) {
        return false;
    }
    if (SSL_CTX_set_default_verify_paths(context.ctx) != 1) {
        ngx_log_error(NGX_LOG_ERR, log, 0, "llm: the system's certificate authorities cannot be loaded");
        free_client_tls();
        return false;
    }
    SSL_CTX_set_verify(context.ctx, SSL_VERIFY_PEER, nullptr);
    return true;
}

}  // namespace

bool start_client_tls(ngx_connection_t* connection, const std::string& host) {
    if (!make_context(connection->log) ||
        ngx_ssl_create_connection(&context, connection, NGX_SSL_BUFFER | NGX_SSL_CLIENT) != NGX_OK) {
        return false;
    }
    SSL* ssl = connection->ssl->connection;
    // what could not be sent may be tried again from a buffer that has grown meanwhile
    SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    PeerAddress address;
    return expect_peer(ssl, host, parse_numeric_address(host, 0, address));
}

std::string tls_problem(ngx_connection_t* connection) {
    std::string problem;
    if (connection->ssl != nullptr) {
        problem = certificate_problem(connection->ssl->connection);
    }
    return problem.empty() ? "the TLS handshake failed" : problem;
}

void free_client_tls() {
    if (context.ctx != nullptr) {
        SSL_CTX_free(context.ctx);
        context.ctx = nullptr;
    }
}

}  // namespace llm::nginx::sources
