// TLS as a client: one context per process that trusts the system's certificate authorities.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <string>

namespace llm::nginx::sources {

// Puts TLS on a connected socket: the peer must show a certificate for `host` (a name, also sent as SNI, or
// an address) that the system store vouches for (or SSL_CERT_FILE / SSL_CERT_DIR). Call ngx_ssl_handshake()
// next. The connection needs a pool. False when it cannot be done, logged.
bool start_client_tls(ngx_connection_t* connection, const std::string& host);

// Why the handshake failed, for a log line.
std::string tls_problem(ngx_connection_t* connection);

// The alert that the peer has sent on this connection, if it was the last of all; else empty. nginx has a line for it, too, but with
// every attempt.
std::string tls_alert(ngx_connection_t* connection);

// Frees the context. Only when no connection uses it any more.
void free_client_tls();

}  // namespace llm::nginx::sources
