// Who is calling: the token of the Authorization header, looked up in the zone.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// Sets request.auth and what hangs on it, once; later calls are free. False when memory is short.
bool authenticate(Request& request);

// The client's full record: valid until the next call in this worker. Looks the token up again if another
// request was asked for meanwhile; nullptr when it is no longer valid.
const core::ClientView* client_of(Request& request);

// Whether the request has no token at all: no Authorization header, or an empty one. Also where none is
// needed.
bool has_no_token(const Request& request);

// True when the request has no token, yet passed the access phase: with `satisfy any` another module let it
// in.
bool another_module_vouches(const Request& request);

// Accepts the request without a token, as the anonymous client: another module vouched for it.
void accept_anonymous(Request& request);

// The error that request.auth stands for, when it is not ok.
ErrorCode auth_error(const Request& request);

}  // namespace llm::nginx
