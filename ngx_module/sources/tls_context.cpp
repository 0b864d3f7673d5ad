#include "ngx_module/sources/tls_context.hpp"

#include "ngx_module/sources/host_resolver.hpp"
#include "shared/tls_peer.hpp"

namespace llm::nginx::sources {
namespace {

ngx_ssl_t context;

// What peers have sent last.
struct Alert {
    const SSL* session;
    int number;
};
Alert alert;

void note_alert(const SSL* session, int where, int value) {
    const int number = value & 0xff;
    if ((where & SSL_CB_ALERT) != 0 && (where & SSL_CB_READ) != 0 && number != SSL_AD_CLOSE_NOTIFY) {
        alert = {.session = session, .number = number};
    }
}

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
    alert = {};  // the address may be that of a former session
    SSL_set_info_callback(ssl, note_alert);
    PeerAddress address;
    return expect_peer(ssl, host, parse_numeric_address(host, 0, address));
}

std::string tls_problem(ngx_connection_t* connection) {
    std::string problem;
    if (connection->ssl != nullptr) {
        problem = certificate_problem(connection->ssl->connection);
    }
    if (!problem.empty()) {
        return problem;
    }
    const std::string sent = tls_alert(connection);
    return sent.empty() ? "the TLS handshake failed" : "the TLS handshake failed (" + sent + ")";
}

std::string tls_alert(ngx_connection_t* connection) {
    if (connection->ssl == nullptr || alert.session != connection->ssl->connection) {
        return {};
    }
    const char* text = ERR_reason_error_string(ERR_PACK(ERR_LIB_SSL, 0, SSL_AD_REASON_OFFSET + alert.number));
    return text != nullptr ? text : "alert " + std::to_string(alert.number);
}

void free_client_tls() {
    if (context.ctx != nullptr) {
        SSL_CTX_free(context.ctx);
        context.ctx = nullptr;
    }
}

}  // namespace llm::nginx::sources
