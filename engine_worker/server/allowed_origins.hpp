// Which web pages may read the engine's answers from a browser (the Fetch standard, "CORS protocol").
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/server/http_message.hpp"

namespace llm::engine {

class AllowedOrigins {
  public:
    // "*" (every page), "none", or origins separated by commas, each a scheme, a host and perhaps a port as browsers send
    // them: https://chat.example.org. Empty, or what is wrong.
    std::string parse(std::string_view list);

    // What an answer says to a request with this Origin header (empty: it has none).
    HttpHeaders headers_for(std::string_view origin) const;

  private:
    bool all_ = true;
    std::vector<std::string> origins_;
};

}  // namespace llm::engine
