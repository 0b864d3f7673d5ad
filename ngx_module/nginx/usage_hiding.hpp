// llm_usage_inject asks engines for a usage event in streams whose client did not; that event stays here.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// Feeds the chain to request.scan and returns it without the usage event: the same chain when nothing has to
// be held back or dropped, else one with copies in its place; nullptr when nothing is left.
ngx_chain_t* hide_usage(Request& request, ngx_chain_t* in);

}  // namespace llm::nginx
