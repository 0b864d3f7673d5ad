// Whom a TLS client expects at the other end, and what was wrong with whom it met.
#pragma once

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <string>

namespace llm {

// The certificate must name `host`. `numeric`: it is an address, which is looked for among the certificate's addresses
// and is no server name (RFC 6066); else it is sent as one. False when OpenSSL takes it for neither, or memory is short.
inline bool expect_peer(SSL* session, const std::string& host, bool numeric) {
    if (numeric) {
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session), host.c_str()) == 1;
    }
    return SSL_set_tlsext_host_name(session, host.c_str()) == 1 && SSL_set1_host(session, host.c_str()) == 1;
}

// Why a handshake failed, as far as the certificate is the reason; else empty.
inline std::string certificate_problem(const SSL* session) {
    const long verdict = SSL_get_verify_result(session);
    return verdict == X509_V_OK
               ? ""
               : std::string("the certificate is refused: ") + X509_verify_cert_error_string(verdict);
}

}  // namespace llm
